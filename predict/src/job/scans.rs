//! What was found when inputs were read, so that of many processes one reads them.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::time::UNIX_EPOCH;

use anyhow::{Context, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// Findings by what they are about.
#[derive(Debug, Default)]
pub(crate) struct Scans {
    found: RefCell<BTreeMap<String, Value>>,
}

impl Scans {
    /// Those of another process.
    ///
    /// # Errors
    /// The bytes are not what [`to_bytes`](Self::to_bytes) gave.
    pub(crate) fn of_another_process(bytes: &[u8]) -> Result<Self> {
        let found = serde_json::from_slice(bytes).context("what another process found in the inputs")?;
        Ok(Self { found: RefCell::new(found) })
    }

    /// For another process.
    pub(crate) fn to_bytes(&self) -> Result<Vec<u8>> {
        Ok(serde_json::to_vec(&*self.found.borrow())?)
    }

    /// What is known about a file as it is now and all that a finding depends on beside it; what `scan` finds where nothing
    /// is.
    pub(crate) fn once<T: Serialize + DeserializeOwned>(
        &self,
        file: &str,
        about: Value,
        scan: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        let Some(stamp) = stamp(file) else { return scan() };
        let key = json!([file, stamp, about]).to_string();
        let known = self.found.borrow().get(&key).cloned();
        if let Some(known) = known {
            return serde_json::from_value(known).with_context(|| format!("what another process found in {file}"));
        }
        let found = scan()?;
        self.found.borrow_mut().insert(key, serde_json::to_value(&found)?);
        Ok(found)
    }
}

/// Bytes of a file and the time when it was changed; nothing where that is not known. A name of an array stands behind `#`.
fn stamp(file: &str) -> Option<Value> {
    let path = file.split_once('#').map_or(file, |(path, _)| path);
    let found = fs::metadata(file).or_else(|_| fs::metadata(path)).ok()?;
    let changed = found.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    Some(json!([found.len(), changed.as_secs(), changed.subsec_nanos()]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_once_until_it_changes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("points.npz").display().to_string();
        fs::write(&path, "1").unwrap();
        let first = Scans::default();
        let never = || -> Result<f32> { panic!("it is read again") };
        let about = || json!({"scale": 0.1});
        let bounds = f32::from_bits(0x3eaa_aaab);
        assert_eq!(first.once(&format!("{path}#p"), about(), || Ok(bounds)).unwrap(), bounds);
        let second = Scans::of_another_process(&first.to_bytes().unwrap()).unwrap();
        assert_eq!(second.once(&format!("{path}#p"), about(), never).unwrap(), bounds);
        // Another array, another unit, another content.
        assert_eq!(second.once(&format!("{path}#q"), about(), || Ok(1.0_f32)).unwrap(), 1.0);
        assert_eq!(second.once(&format!("{path}#p"), json!({"scale": 1.0}), || Ok(2.0_f32)).unwrap(), 2.0);
        fs::write(&path, "22").unwrap();
        assert_eq!(second.once(&format!("{path}#p"), about(), || Ok(3.0_f32)).unwrap(), 3.0);
        assert!(Scans::of_another_process(b"{").is_err());
    }
}
