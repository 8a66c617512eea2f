//! Hyper-parameters of a case file beyond those of its kind.

use serde_json::{Map, Value};

use super::inputs::Inputs;
use crate::error::{Error, Result};
use crate::ppo::Config;

/// `config`, overridden by the file's metadata `config`: a JSON object with names of [`Config`].
///
/// # Errors
/// Metadata `config` that is no such object.
pub(super) fn overridden(file: &Inputs<'_>, config: Config) -> Result<Config> {
    let Some(text) = file.optional_text("config") else { return Ok(config) };
    let unusable = |error: serde_json::Error| {
        Error::value("config", "a JSON object of hyper-parameters, by the names that `train` writes to config.json", error)
    };
    let overrides: Map<String, Value> = serde_json::from_str(text).map_err(unusable)?;
    let mut merged = serde_json::to_value(config).map_err(unusable)?;
    if let Value::Object(merged) = &mut merged {
        merged.extend(overrides);
    }
    let config: Config = serde_json::from_value(merged).map_err(unusable)?;
    config.validate()?;
    Ok(config)
}
