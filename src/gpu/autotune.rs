//! Settings of autotuning, and the names of its cache files.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use etcetera::base_strategy::{BaseStrategy, choose_native_strategy};

/// Set to `off`, it turns off timing and caching.
const SWITCH: &str = "PPO_KERNELS_AUTOTUNE";
/// Replaces the user's cache folder.
const FOLDER: &str = "PPO_KERNELS_CACHE_DIR";
/// Characters of a file's stem: file systems allow 255 bytes.
const LONGEST_NAME: usize = 160;

/// Whether a [`Context`](super::Context) times kernel candidates at their first use. Candidates
/// give the same bits. It can cache its choices and the driver's compiled pipelines in files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Autotune {
    /// Fixed choices, no timing, no files.
    Off,
    /// Choices live as long as the context, without files.
    InMemory,
    /// Choices and pipelines are cached in this folder, created with the first file.
    OnDisk(PathBuf),
}

impl Autotune {
    /// `PPO_KERNELS_AUTOTUNE=off` gives [`Off`](Self::Off). Otherwise the folder is
    /// `PPO_KERNELS_CACHE_DIR`, or `ppo-kernels` in the user's cache folder (`XDG_CACHE_HOME` or
    /// `~/.cache`, `~/Library/Caches`, `%LOCALAPPDATA%`).
    pub fn from_environment() -> Self {
        let users = choose_native_strategy().ok().map(|folders| folders.cache_dir().join("ppo-kernels"));
        Self::from_settings(std::env::var_os(SWITCH), std::env::var_os(FOLDER), users)
    }

    fn from_settings(switch: Option<OsString>, folder: Option<OsString>, users: Option<PathBuf>) -> Self {
        match switch {
            Some(switch) if switch == "off" => return Autotune::Off,
            Some(switch) if !switch.is_empty() && switch != "on" => {
                log::warn!("{SWITCH} is {}; set it to on or off", switch.display());
            }
            _ => {}
        }
        let named = folder.filter(|folder| !folder.is_empty()).map(PathBuf::from);
        named.or(users).map_or(Autotune::InMemory, Autotune::OnDisk)
    }

    pub(super) fn folder(&self) -> Option<&Path> {
        match self {
            Autotune::OnDisk(folder) => Some(folder),
            Autotune::Off | Autotune::InMemory => None,
        }
    }
}

/// The stem of the cache files for an adapter, its driver and this version of the crate.
pub(super) fn file_name(info: &wgpu::AdapterInfo) -> String {
    let wgpu::AdapterInfo { name, driver, driver_info, backend, vendor, device, .. } = info;
    let words = format!("{} {backend} {vendor:x} {device:x} {name} {driver} {driver_info}", env!("CARGO_PKG_VERSION"));
    let parts = words.split(|c: char| !c.is_ascii_alphanumeric() && c != '.').filter(|part| !part.is_empty());
    let mut name = parts.collect::<Vec<_>>().join("-").to_lowercase();
    name.truncate(LONGEST_NAME);
    name
}

/// Writes beside the target and renames: readers see the old file or the new one, never a part.
pub(super) fn write_atomically(path: &Path, contents: &[u8]) -> std::io::Result<()> {
    static WRITTEN: AtomicU64 = AtomicU64::new(0);
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let number = WRITTEN.fetch_add(1, Ordering::Relaxed);
    let beside = path.with_added_extension(format!("{}-{number}.tmp", std::process::id()));
    let written = std::fs::write(&beside, contents).and_then(|()| std::fs::rename(&beside, path));
    if written.is_err() {
        let _ = std::fs::remove_file(&beside); // the error that counts is the first
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_has_the_last_word() {
        let of = |switch: Option<&str>, folder: Option<&str>, users: Option<&str>| {
            Autotune::from_settings(switch.map(OsString::from), folder.map(OsString::from), users.map(PathBuf::from))
        };
        let on_disk = |folder: &str| Autotune::OnDisk(PathBuf::from(folder));
        assert_eq!(of(Some("off"), Some("named"), Some("users")), Autotune::Off);
        assert_eq!(of(None, Some("named"), Some("users")), on_disk("named"));
        assert_eq!(of(Some("on"), Some(""), Some("users")), on_disk("users"));
        assert_eq!(of(Some("perhaps"), None, Some("users")), on_disk("users"));
        assert_eq!(of(None, None, None), Autotune::InMemory);
    }
}
