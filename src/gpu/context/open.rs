//! A context on an adapter of its own choice.

use std::sync::{Arc, PoisonError};

use super::Context;
use crate::error::Result;
use crate::gpu::adapter::{self, CooperativeMatrix, Selection};
use crate::gpu::buffer::DeviceId;
#[cfg(any(windows, target_os = "linux", target_os = "android", target_os = "freebsd"))]
use crate::gpu::robustness;
use crate::gpu::wait;

/// How to open an adapter: by default without tensor cores, and with the driver's checks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OpenOptions {
    /// For work on tensor cores too, where the adapter has them: see [`Context::cooperative_matrix`].
    pub tensor_cores: bool,
    /// Nobody checks accesses of buffers: neither shaders nor, on Vulkan, the driver (`robustBufferAccess`). The context refuses to record what
    /// needs checks: [guard regions](Context::set_guards), [replaced shaders](Context::replace_shader) and shaders without
    /// [proven indices](crate::gpu::Indices).
    pub unchecked: bool,
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
    /// [`Error::NoAdapter`](crate::Error::NoAdapter) when none fits, [`Error::Device`](crate::Error::Device) when it cannot be opened.
    pub fn open_with(selection: &Selection, options: OpenOptions) -> Result<Self> {
        let adapter = adapter::select(selection)?;
        let cooperative_matrix = match options.tensor_cores {
            true => CooperativeMatrix::of(&adapter),
            false => Err("the device was opened without tensor cores".to_owned()),
        };
        let useful = wgpu::Features::TIMESTAMP_QUERY | wgpu::Features::PIPELINE_CACHE;
        let wanted = adapter.features() & useful;
        let (features, experimental_features) = match cooperative_matrix {
            // SAFETY: what has to be acknowledged is that such a feature may have bugs that lead to undefined behaviour. Cooperative matrices are
            // asked for by name only, their one kernel states its preconditions, and a self-test on the adapter at hand comes before any use.
            #[allow(unsafe_code)]
            Ok(_) => (wanted | CooperativeMatrix::FEATURES, unsafe { wgpu::ExperimentalFeatures::enabled() }),
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
        let (device, queue) = match options.unchecked {
            true => open_unchecked(&adapter, &descriptor)?,
            false => wait::request_device(&adapter, &descriptor)?,
        };
        let context = Self {
            device_id: DeviceId::of_opened(),
            probe: None,
            cooperative_matrix,
            bounds_checks: cfg!(debug_assertions) && !options.unchecked,
            can_check_bounds: !options.unchecked,
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

/// Without the driver's checks of buffers; with them, and a warning, where that cannot be had: on APIs that check only what wgpu writes into shaders.
#[allow(unsafe_code)]
fn open_unchecked(adapter: &wgpu::Adapter, descriptor: &wgpu::DeviceDescriptor<'_>) -> Result<(wgpu::Device, wgpu::Queue)> {
    #[cfg(any(windows, target_os = "linux", target_os = "android", target_os = "freebsd"))]
    // SAFETY: nobody but the context has the device, and it records no shader on it but our own, as they stand, whose indices their headers prove.
    let opened = unsafe { robustness::open_unchecked(adapter, descriptor) };
    #[cfg(not(any(windows, target_os = "linux", target_os = "android", target_os = "freebsd")))]
    let opened = Err("it is not opened through Vulkan");
    opened.or_else(|reason| {
        log::warn!("{}: the driver goes on checking accesses of buffers: {reason}", adapter.get_info().name);
        wait::request_device(adapter, descriptor)
    })
}
