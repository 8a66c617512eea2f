//! The file of choices: one for each adapter, driver and version of this crate.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::autotune::{file_name, write_atomically};

/// From [tuning key](super::cache::TuningKey) to the fastest candidate's name.
type Choices = BTreeMap<String, String>;

/// Choices hold for equal identities only; the file's name abbreviates them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Identity {
    ppo_kernels: String,
    backend: String,
    vendor: u32,
    device: u32,
    adapter: String,
    driver: String,
    driver_info: String,
}

#[derive(Serialize, Deserialize)]
struct Contents {
    made_on: Identity,
    choices: Choices,
}

/// Choices on disk. A failure of the file system is no error: the next process times again.
pub(super) struct ChoicesFile {
    path: PathBuf,
    identity: Identity,
    choices: Choices,
    /// False after the first failed write.
    is_writable: bool,
}

impl ChoicesFile {
    pub(super) fn open(folder: &Path, info: &wgpu::AdapterInfo) -> Self {
        let identity = Identity {
            ppo_kernels: env!("CARGO_PKG_VERSION").to_owned(),
            backend: info.backend.to_string(),
            vendor: info.vendor,
            device: info.device,
            adapter: info.name.clone(),
            driver: info.driver.clone(),
            driver_info: info.driver_info.clone(),
        };
        let path = folder.join(file_name(info) + ".json");
        let mut file = Self { path, identity, choices: Choices::new(), is_writable: true };
        match file.read() {
            Ok(choices) => file.choices = choices,
            Err(reason) => log::warn!("{} is ignored ({reason}); the next choice overwrites it", file.path.display()),
        }
        file
    }

    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.choices.get(key).map(String::as_str)
    }

    /// Adds a choice to the file, after reading it again for the choices of other processes. If two
    /// processes write at once, one choice can be lost; the next process times it again.
    pub(super) fn put(&mut self, key: String, choice: &str) {
        if let Ok(others) = self.read() {
            self.choices.extend(others);
        }
        self.choices.insert(key, choice.to_owned());
        if !self.is_writable {
            return;
        }
        let contents = Contents { made_on: self.identity.clone(), choices: self.choices.clone() };
        let written = serde_json::to_vec_pretty(&contents)
            .map_err(std::io::Error::from)
            .and_then(|text| write_atomically(&self.path, &text));
        if let Err(error) = written {
            log::warn!("cannot write {} ({error}); choices are not saved", self.path.display());
            self.is_writable = false;
        }
    }

    fn read(&self) -> Result<Choices, String> {
        let text = match std::fs::read(&self.path) {
            Ok(text) => text,
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(Choices::new()),
            Err(error) => return Err(error.to_string()),
        };
        let Contents { made_on, choices } = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
        if made_on == self.identity { Ok(choices) } else { Err("it belongs to another adapter, driver or version".to_owned()) }
    }
}
