//! Output that tolerates a closed pipe.

use std::io::{ErrorKind, Write};
use std::path::PathBuf;

use comfy_table::Table;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use ppo_kernels::{Error, Result};

/// Prints a line on stdout. A closed pipe (`ppo-kernels verify | head`) is no error.
pub fn line(text: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    match writeln!(stdout, "{text}").and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(Error::Io { path: PathBuf::from("stdout"), source: error }),
        _ => Ok(()),
    }
}

/// Prints a line on stderr and ignores failures.
pub fn note(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// An empty table in the program's style.
pub fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED);
    table.set_header(header.iter().copied());
    table
}
