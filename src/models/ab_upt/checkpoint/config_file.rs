//! Configurations in JSON files.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use crate::files::{UniqueKeys, read_text};
use crate::models::ab_upt::config::AbUptConfig;
use crate::models::ab_upt::error::AbUptError;

impl AbUptConfig {
    /// Reads a JSON file that holds a configuration, at the top or as the entry `model` of a larger description.
    ///
    /// # Errors
    /// A file that cannot be read or is not such a configuration, or names a key twice; a configuration that cannot work.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, AbUptError> {
        let path = path.as_ref();
        let text = read_text(path).map_err(AbUptError::io(path))?;
        let refuse = |error: serde_json::Error| AbUptError::format(path, "configuration", error);
        serde_json::from_str::<UniqueKeys>(&text).map_err(refuse)?;
        let mut value: Value = serde_json::from_str(&text).map_err(refuse)?;
        if let Some(model) = value.get_mut("model") {
            value = model.take();
        }
        let config = Self::deserialize(value).map_err(refuse)?;
        config.validate()?;
        Ok(config)
    }
}
