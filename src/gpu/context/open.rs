//! A context on an adapter of its own choice.

use std::sync::{Arc, PoisonError};

use super::Context;
use crate::error::{Error, Result};
use crate::gpu::adapter::{self, CooperativeMatrix, Selection};

impl Context {
    /// Opens an adapter with its own limits, and with timestamp queries, pipeline caches and subgroups where it has them.
    ///
    /// # Errors
    /// [`Error::NoAdapter`] when none fits, [`Error::Device`] when it cannot be opened.
    pub fn open(selection: &Selection) -> Result<Self> {
        Self::open_adapter(&adapter::select(selection)?, Err("the device was opened without tensor cores".to_owned()))
    }

    /// As [`open`](Self::open), for work on tensor cores too, where the adapter has them: see [`cooperative_matrix`](Self::cooperative_matrix).
    ///
    /// # Errors
    /// Those of [`open`](Self::open).
    pub fn open_with_tensor_cores(selection: &Selection) -> Result<Self> {
        let adapter = adapter::select(selection)?;
        Self::open_adapter(&adapter, CooperativeMatrix::of(&adapter))
    }

    fn open_adapter(adapter: &wgpu::Adapter, cooperative_matrix: std::result::Result<CooperativeMatrix, String>) -> Result<Self> {
        let useful = wgpu::Features::TIMESTAMP_QUERY | wgpu::Features::PIPELINE_CACHE | wgpu::Features::SUBGROUP;
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
        let (device, queue) =
            pollster::block_on(adapter.request_device(&descriptor)).map_err(|e| Error::Device(e.to_string()))?;
        let context = Self { cooperative_matrix, ..Self::from_wgpu(device, queue, adapter.get_info().name) };
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
