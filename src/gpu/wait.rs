//! The only module that blocks, and in the device layer the only one that reads the host's clock.
//!
//! A browser's main thread must not block, and panics at `Instant::now`. A test finds other
//! callers.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pollster::block_on;

use crate::error::{Error, Result};

/// Time of spin-waiting before the thread sleeps. A sleeping thread needs some 10 µs to wake, as
/// long as a small dispatch. A software adapter computes on the same cores and is slower.
const SPIN: Duration = Duration::from_millis(1);
const SPIN_ON_SOFTWARE: Duration = Duration::from_millis(20);
/// Prefix of wgpu's panic for a device lost during a poll, which this crate turns into an error.
const PANIC: &str = "Error in Device::poll:";

pub(super) fn enumerate_adapters(instance: &wgpu::Instance) -> Vec<wgpu::Adapter> {
    block_on(instance.enumerate_adapters(wgpu::Backends::all()))
}

pub(super) fn request_device(
    adapter: &wgpu::Adapter,
    descriptor: &wgpu::DeviceDescriptor<'_>,
) -> Result<(wgpu::Device, wgpu::Queue)> {
    block_on(adapter.request_device(descriptor)).map_err(|e| Error::Device(e.to_string()))
}

/// The result of `make`, and the first error of kind `filter` in it.
pub(super) fn with_error_scope<R>(
    device: &wgpu::Device,
    filter: wgpu::ErrorFilter,
    make: impl FnOnce() -> R,
) -> (R, Option<wgpu::Error>) {
    let scope = device.push_error_scope(filter);
    let made = make();
    (made, block_on(scope.pop()))
}

/// Waits for all submissions: spins, then sleeps.
pub(super) fn until_idle(device: &wgpu::Device, is_software: bool) -> Result<()> {
    let (begin, spin) = (Instant::now(), if is_software { SPIN_ON_SOFTWARE } else { SPIN });
    while begin.elapsed() < spin {
        if poll(device, wgpu::PollType::Poll)?.is_queue_empty() {
            return Ok(());
        }
        std::thread::yield_now();
    }
    poll(device, wgpu::PollType::wait_indefinitely()).map(drop)
}

/// Waits for all submissions, then converts the first `size` bytes of a mappable buffer.
pub(super) fn read<R>(
    device: &wgpu::Device,
    is_software: bool,
    buffer: &wgpu::Buffer,
    size: u64,
    convert: impl FnOnce(&[u8]) -> R,
) -> Result<R> {
    buffer.map_async(wgpu::MapMode::Read, ..size, |_| {});
    until_idle(device, is_software)?;
    let view = buffer.get_mapped_range(..size).map_err(|e| Error::Device(e.to_string()))?;
    let result = convert(&view);
    drop(view);
    buffer.unmap();
    Ok(result)
}

/// A small buffer for [`is_lost`]: a caller's device reports its loss only to the caller.
pub(super) fn probe(device: &wgpu::Device) -> wgpu::Buffer {
    let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
    let descriptor = wgpu::BufferDescriptor { label: Some("probe"), size: 4, usage, mapped_at_creation: false };
    with_error_scope(device, wgpu::ErrorFilter::Validation, || device.create_buffer(&descriptor)).0
}

/// Whether the [`probe`]'s device is lost: it then refuses to map the probe. The error scope hides
/// the refusal from the caller's callback.
pub(super) fn is_lost(device: &wgpu::Device, probe: &wgpu::Buffer) -> bool {
    let refused = Arc::new(AtomicBool::new(false));
    let answer = Arc::clone(&refused);
    let map = || {
        probe.map_async(wgpu::MapMode::Read, .., move |mapped| answer.store(mapped.is_err(), Ordering::Release));
        // Read first: unmapping reports an error too.
        let is_lost = refused.load(Ordering::Acquire);
        if !is_lost {
            probe.unmap();
        }
        is_lost
    };
    with_error_scope(device, wgpu::ErrorFilter::Validation, map).0
}

pub(super) struct Stopwatch(Instant);

impl Stopwatch {
    pub(super) fn start() -> Self {
        Self(Instant::now())
    }

    pub(super) fn seconds(&self) -> f64 {
        self.0.elapsed().as_secs_f64()
    }
}

fn poll(device: &wgpu::Device, how: wgpu::PollType) -> Result<wgpu::PollStatus> {
    match catch_unwind(AssertUnwindSafe(|| device.poll(how))) {
        Ok(polled) => polled.map_err(|e| Error::Device(e.to_string())),
        Err(panic) => Err(lost(panic)),
    }
}

/// Converts wgpu's panic; other panics, such as a caller's callbacks', continue.
fn lost(panic: Box<dyn Any + Send>) -> Error {
    match panic.downcast_ref::<String>().and_then(|message| message.strip_prefix(PANIC)) {
        Some(cause) => Error::DeviceLost(cause.split_whitespace().collect::<Vec<_>>().join(" ")),
        None => resume_unwind(panic),
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;

    #[test]
    fn the_panic_of_a_lost_device_is_an_error_and_others_go_on() {
        let panic: Box<dyn Any + Send> = Box::new(format!("{PANIC}   Validation Error\n\nCaused by:\n  Parent device is lost\n"));
        assert!(matches!(lost(panic), Error::DeviceLost(cause) if cause == "Validation Error Caused by: Parent device is lost"));
        for other in ["a caller's own", "Error in Surface::present: lost"] {
            let panic: Box<dyn Any + Send> = Box::new(other.to_owned());
            let gone_on = catch_unwind(AssertUnwindSafe(|| lost(panic))).unwrap_err();
            assert_eq!(gone_on.downcast_ref::<String>().map(String::as_str), Some(other));
        }
    }

    /// Blocking calls in code: of a device, and in the device layer of the host's clock.
    fn blocking_calls(path: &Path, text: &str) -> Vec<&'static str> {
        let anywhere = ["pollster", "block_on", ".poll(", "map_async", "get_mapped_range", "push_error_scope"];
        let in_gpu: &[_] = if path.iter().any(|part| part == "gpu") { &["Instant", "yield_now"] } else { &[] };
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        let code: Vec<_> = code.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
        anywhere.iter().chain(in_gpu).copied().filter(|call| code.iter().any(|line| line.contains(call))).collect()
    }

    /// Rust files below a folder that block.
    fn waiting(folder: &Path) -> Vec<PathBuf> {
        let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let found = paths.flat_map(|path| match path.is_dir() {
            true => waiting(&path),
            false => vec![path],
        });
        found.filter(|path| !blocking_calls(path, &std::fs::read_to_string(path).unwrap()).is_empty()).collect()
    }

    #[test]
    fn no_other_module_waits() {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        assert_eq!(waiting(&source), [source.join("gpu/wait.rs")]);
        assert_eq!(blocking_calls(&source.join("gpu/wait.rs"), include_str!("wait.rs")).len(), 8);
        assert_eq!(blocking_calls(Path::new("src/train.rs"), "device.poll(how); Instant::now()"), [".poll("]);
    }
}
