//! Asking the device how far it is.

use std::any::Any;
use std::panic::{AssertUnwindSafe, resume_unwind};

use crate::error::{Error, Result};

/// How wgpu's panic begins where a device is lost while it is waited for: to a caller of this crate that is an error like any other.
const PANIC: &str = "Error in Device::poll:";

pub(super) fn poll(device: &wgpu::Device, how: wgpu::PollType) -> Result<wgpu::PollStatus> {
    match std::panic::catch_unwind(AssertUnwindSafe(|| device.poll(how))) {
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
    use super::*;

    #[test]
    fn the_panic_of_a_lost_device_is_an_error_and_others_go_on() {
        let panic: Box<dyn Any + Send> = Box::new(format!("{PANIC}   Validation Error\n\nCaused by:\n  Parent device is lost\n"));
        assert!(matches!(lost(panic), Error::DeviceLost(cause) if cause == "Validation Error Caused by: Parent device is lost"));
        for other in ["a caller's own", "Error in Surface::present: lost"] {
            let panic: Box<dyn Any + Send> = Box::new(other.to_owned());
            let gone_on = std::panic::catch_unwind(AssertUnwindSafe(|| lost(panic))).unwrap_err();
            assert_eq!(gone_on.downcast_ref::<String>().map(String::as_str), Some(other));
        }
    }
}
