//! Opening an adapter.

use std::sync::{Arc, PoisonError};

use super::Context;
use crate::error::Result;
use crate::gpu::adapter::{self, CooperativeMatrix, Selection};
use crate::gpu::buffer::DeviceId;
#[cfg(any(windows, target_os = "linux", target_os = "android", target_os = "freebsd"))]
use crate::gpu::robustness;
use crate::gpu::wait;

/// Options for opening an adapter. By default, without tensor cores and with the driver's checks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OpenOptions {
    /// Enables tensor cores where the adapter has them: see [`Context::cooperative_matrix`].
    pub tensor_cores: bool,
    /// Turns off all checks of buffer accesses, the Vulkan driver's (`robustBufferAccess`) too. The
    /// context then refuses [guard regions](Context::set_guards), [replaced
    /// shaders](Context::replace_shader) and shaders without [proven indices](crate::gpu::Indices).
    pub unchecked: bool,
}

impl Context {
    /// [`open_with`](Self::open_with) default options.
    ///
    /// # Errors
    /// Those of [`open_with`](Self::open_with).
    pub fn open(selection: &Selection) -> Result<Self> {
        Self::open_with(selection, OpenOptions::default())
    }

    /// Opens an adapter with its limits, and timestamp queries and pipeline caches if it has them.
    ///
    /// # Errors
    /// [`Error::NoAdapter`](crate::Error::NoAdapter), [`Error::Device`](crate::Error::Device).
    pub fn open_with(selection: &Selection, options: OpenOptions) -> Result<Self> {
        let adapter = adapter::select(selection)?;
        let cooperative_matrix = match options.tensor_cores {
            true => CooperativeMatrix::of(&adapter),
            false => Err("the device was opened without tensor cores".to_owned()),
        };
        let useful = wgpu::Features::TIMESTAMP_QUERY | wgpu::Features::PIPELINE_CACHE;
        let wanted = adapter.features() & useful;
        let (features, experimental_features) = match cooperative_matrix {
            // SAFETY: an experimental feature may have bugs that cause undefined behaviour. The
            // kernel of cooperative matrices states its preconditions and runs a self-test on the
            // adapter first.
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

/// Opens without the driver's checks; where that is impossible, with them and a warning.
#[allow(unsafe_code)]
fn open_unchecked(adapter: &wgpu::Adapter, descriptor: &wgpu::DeviceDescriptor<'_>) -> Result<(wgpu::Device, wgpu::Queue)> {
    #[cfg(any(windows, target_os = "linux", target_os = "android", target_os = "freebsd"))]
    // SAFETY: only the context has the device; it records only shaders with proven indices.
    let opened = unsafe { robustness::open_unchecked(adapter, descriptor) };
    #[cfg(not(any(windows, target_os = "linux", target_os = "android", target_os = "freebsd")))]
    let opened = Err("it is not opened through Vulkan");
    opened.or_else(|reason| {
        log::warn!("{} keeps the driver's checks of buffer accesses: {reason}", adapter.get_info().name);
        wait::request_device(adapter, descriptor)
    })
}
