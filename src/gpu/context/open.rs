//! A context on an adapter of its own choice.

use std::sync::{Arc, PoisonError};

use super::Context;
use crate::error::{Error, Result};
use crate::gpu::adapter::{self, CooperativeMatrix, Selection};
use crate::gpu::buffer::DeviceId;
use crate::gpu::robustness;

/// How to open an adapter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenOptions {
    /// For work on tensor cores too, where the adapter has them: see [`Context::cooperative_matrix`].
    pub tensor_cores: bool,
    /// Whether shaders check their indices, which is for finding faults: [guard regions](Context::set_guards) and
    /// [replaced shaders](Context::replace_shader) need it. Without, Vulkan's drivers are not asked to check accesses of buffers either.
    pub bounds_checks: bool,
}

/// No tensor cores; bounds checks with debug assertions alone.
impl Default for OpenOptions {
    fn default() -> Self {
        Self { tensor_cores: false, bounds_checks: cfg!(debug_assertions) }
    }
}

impl Context {
    /// [`open_with`](Self::open_with) the usual options.
    ///
    /// # Errors
    /// Those of [`open_with`](Self::open_with).
    pub fn open(selection: &Selection) -> Result<Self> {
        Self::open_with(selection, OpenOptions::default())
    }

    /// Opens an adapter with its own limits, and with timestamp queries and pipeline caches where it has them.
    ///
    /// # Errors
    /// [`Error::NoAdapter`] when none fits, [`Error::Device`] when it cannot be opened.
    pub fn open_with(selection: &Selection, options: OpenOptions) -> Result<Self> {
        let adapter = adapter::select(selection)?;
        let cooperative_matrix = match options.tensor_cores {
            true => CooperativeMatrix::of(&adapter),
            false => Err("the device was opened without tensor cores".to_owned()),
        };
        let useful = wgpu::Features::TIMESTAMP_QUERY | wgpu::Features::PIPELINE_CACHE;
        let wanted = adapter.features() & useful;
        let (features, experimental_features) = match cooperative_matrix {
            Ok(_) => (wanted | CooperativeMatrix::FEATURES, experimental_features()),
            Err(_) => (wanted, wgpu::ExperimentalFeatures::disabled()),
        };
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("ppo-kernels"),
            required_features: features,
            required_limits: adapter.limits(),
            experimental_features,
            memory_hints: wgpu::MemoryHints::Performance,
            ..Default::default()
        };
        let request = || pollster::block_on(adapter.request_device(&descriptor)).map_err(|e| Error::Device(e.to_string()));
        let (device, queue) = match options.bounds_checks {
            true => request()?,
            false => open_unchecked(&adapter, &descriptor).map_or_else(request, Ok)?,
        };
        let context = Self {
            device_id: DeviceId::of_opened(),
            cooperative_matrix,
            bounds_checks: options.bounds_checks,
            can_check_bounds: options.bounds_checks,
            ..Self::from_wgpu(device, queue, adapter.get_info().name)
        };
        let reported = Arc::clone(&context.reported);
        context.device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
            reported.lock().unwrap_or_else(PoisonError::into_inner).error.get_or_insert(error.to_string());
        }));
        let reported = Arc::clone(&context.reported);
        context.device.set_device_lost_callback(move |_, message| {
            reported.lock().unwrap_or_else(PoisonError::into_inner).lost.get_or_insert(message);
        });
        Ok(context)
    }
}

/// wgpu's leave to use features that it calls experimental, of which this crate asks for cooperative matrices alone.
#[allow(unsafe_code)]
fn experimental_features() -> wgpu::ExperimentalFeatures {
    // SAFETY: what has to be acknowledged is that such a feature may have bugs that lead to undefined behaviour. It is asked for by name only, its
    // one kernel states its preconditions, and a self-test on the adapter at hand comes before any use.
    unsafe { wgpu::ExperimentalFeatures::enabled() }
}

/// Without the driver's checks of buffers, where that can be had.
#[allow(unsafe_code)]
fn open_unchecked(adapter: &wgpu::Adapter, descriptor: &wgpu::DeviceDescriptor<'_>) -> Option<(wgpu::Device, wgpu::Queue)> {
    // SAFETY: nobody but the context has the device, and it records no shader on it but our own, as they stand, whose indices their headers prove.
    unsafe { robustness::open_unchecked(adapter, descriptor) }
}
