//! The one module that waits: for adapters, devices, error scopes, submitted work, mapped buffers, and by the host's clock.
//!
//! A browser's main thread must not block, and panics at `Instant::now`. So every blocking call stands here, behind functions that say
//! what they wait for; a test fails where another module blocks.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pollster::block_on;

use crate::error::{Error, Result};

/// How long to spin before sleeping until the device is done: a thread that sleeps takes some ten microseconds to wake up, as long as a
/// small dispatch takes. Hardware works meanwhile. A software adapter computes on these cores, and takes longer for everything.
const SPIN: Duration = Duration::from_millis(1);
const SPIN_ON_SOFTWARE: Duration = Duration::from_millis(20);
/// How wgpu's panic begins where a device is lost while it is waited for: to a caller of this crate that is an error like any other.
const PANIC: &str = "Error in Device::poll:";

/// All adapters of all APIs of the instance.
pub(super) fn enumerate_adapters(instance: &wgpu::Instance) -> Vec<wgpu::Adapter> {
    block_on(instance.enumerate_adapters(wgpu::Backends::all()))
}

/// A device and its queue, or [`Error::Device`].
pub(super) fn request_device(
    adapter: &wgpu::Adapter,
    descriptor: &wgpu::DeviceDescriptor<'_>,
) -> Result<(wgpu::Device, wgpu::Queue)> {
    block_on(adapter.request_device(descriptor)).map_err(|e| Error::Device(e.to_string()))
}

/// The result of `make`, and the first error of the kind `filter` that it caused.
pub(super) fn with_error_scope<R>(
    device: &wgpu::Device,
    filter: wgpu::ErrorFilter,
    make: impl FnOnce() -> R,
) -> (R, Option<wgpu::Error>) {
    let scope = device.push_error_scope(filter);
    let made = make();
    (made, block_on(scope.pop()))
}

/// Waits for everything submitted: spins first, then sleeps.
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

/// Waits for everything submitted, and converts the first `size` bytes of a buffer that can be mapped.
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

/// A small buffer of a caller's device, for [`is_lost`]: the lost callback is the caller's, and a device that is gone reports nothing.
pub(super) fn probe(device: &wgpu::Device) -> wgpu::Buffer {
    let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
    let descriptor = wgpu::BufferDescriptor { label: Some("probe"), size: 4, usage, mapped_at_creation: false };
    with_error_scope(device, wgpu::ErrorFilter::Validation, || device.create_buffer(&descriptor)).0
}

/// Whether the device of a [`probe`] is lost: it then refuses at once to map the probe. The error scope keeps what is refused from the
/// caller's callback.
pub(super) fn is_lost(device: &wgpu::Device, probe: &wgpu::Buffer) -> bool {
    let refused = Arc::new(AtomicBool::new(false));
    let answer = Arc::clone(&refused);
    let map = || {
        probe.map_async(wgpu::MapMode::Read, .., move |mapped| answer.store(mapped.is_err(), Ordering::Release));
        // Before the mapping is called off, which is an error too.
        let is_lost = refused.load(Ordering::Acquire);
        if !is_lost {
            probe.unmap();
        }
        is_lost
    };
    with_error_scope(device, wgpu::ErrorFilter::Validation, map).0
}

/// The host's clock.
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

/// Other panics, such as those of a caller's callbacks, go on.
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

    /// Calls that block on a device, or in the device layer use the host's clock, outside comments and tests.
    fn blocking_calls(path: &Path, text: &str) -> Vec<&'static str> {
        let anywhere = ["pollster", "block_on", ".poll(", "map_async", "get_mapped_range", "push_error_scope"];
        let in_gpu: &[_] = if path.iter().any(|part| part == "gpu") { &["Instant", "yield_now"] } else { &[] };
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        let code: Vec<_> = code.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
        anywhere.iter().chain(in_gpu).copied().filter(|call| code.iter().any(|line| line.contains(call))).collect()
    }

    /// Rust files that block, below a folder.
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
