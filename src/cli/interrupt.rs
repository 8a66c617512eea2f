//! Ctrl-C: the first asks for an orderly end, the second ends at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ppo_kernels::{Error, Result};

use super::output;

/// What a shell reports for a program that SIGINT (2) ended: 128 + 2.
pub const EXIT_CODE: u8 = 130;

/// Whether somebody asked for an orderly end: Ctrl-C, a termination request, or a closed terminal.
#[derive(Debug, Clone)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Starts to listen. Once in a process. `until_the_end` is what the user is told will come first.
    ///
    /// # Errors
    /// The system's refusal to install a handler.
    pub fn listen(until_the_end: &'static str) -> Result<Self> {
        let requested = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&requested);
        ctrlc::set_handler(move || {
            if seen.swap(true, Ordering::SeqCst) {
                std::process::exit(i32::from(EXIT_CODE));
            }
            output::note(&format!("interrupted: {until_the_end} (once more to abort)"));
        })
        .map_err(|error| Error::Device(format!("no handler for Ctrl-C: {error}")))?;
        Ok(Self(requested))
    }

    /// Whether it has been asked for.
    pub fn requested(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}
