//! Ctrl-C: the first requests an orderly end, the second ends at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ppo_kernels::{Error, Result};

use super::output;

/// A shell's code for a program ended by SIGINT (2): 128 + 2.
pub const EXIT_CODE: u8 = 130;

/// Set by Ctrl-C, a termination request, or a closed terminal.
#[derive(Debug, Clone)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Starts listening, once in a process. `until_the_end` names the remaining work for the user.
    pub fn listen(until_the_end: &'static str) -> Result<Self> {
        let requested = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&requested);
        ctrlc::set_handler(move || {
            if seen.swap(true, Ordering::SeqCst) {
                std::process::exit(i32::from(EXIT_CODE));
            }
            output::note(&format!("interrupted: {until_the_end} (once more to abort)"));
        })
        .map_err(|error| Error::Device(format!("cannot handle Ctrl-C: {error}")))?;
        Ok(Self(requested))
    }

    pub fn requested(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}
