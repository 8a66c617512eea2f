//! Whether a caller's device is still there: its lost callback is the caller's, and what is done on a device that is gone reports nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A small buffer that a living device agrees to map.
#[derive(Debug)]
pub(super) struct Pulse(wgpu::Buffer);

impl Pulse {
    pub(super) fn new(device: &wgpu::Device) -> Self {
        let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
        let descriptor = wgpu::BufferDescriptor { label: Some("pulse"), size: 4, usage, mapped_at_creation: false };
        Self(quietly(device, || device.create_buffer(&descriptor)))
    }

    /// A device that is lost refuses at once; where it agrees, the mapping is called off.
    pub(super) fn has_stopped(&self, device: &wgpu::Device) -> bool {
        let refused = Arc::new(AtomicBool::new(false));
        let answer = Arc::clone(&refused);
        quietly(device, || {
            self.0.map_async(wgpu::MapMode::Read, .., move |mapped| answer.store(mapped.is_err(), Ordering::Release));
            // Before the mapping is called off, which is an error too.
            let has_stopped = refused.load(Ordering::Acquire);
            if !has_stopped {
                self.0.unmap();
            }
            has_stopped
        })
    }
}

/// Keeps errors from the caller's callback.
fn quietly<R>(device: &wgpu::Device, act: impl FnOnce() -> R) -> R {
    let scope = device.push_error_scope(wgpu::ErrorFilter::Validation);
    let result = act();
    drop(pollster::block_on(scope.pop()));
    result
}
