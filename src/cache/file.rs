//! Cache files: safetensors with a JSON header in their metadata.

use std::collections::HashMap;
use std::fmt::Display;
use std::path::Path;

use candle_core::{Device, Error, Result, Tensor};
use safetensors::SafeTensors;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::AttentionError;
use crate::files::{UniqueKeys, check_header, read_regular};
use crate::through_candle::without_backtrace;

/// One kind of cache file.
pub(crate) struct CacheFormat {
    /// Value of the `format` entry of the metadata.
    pub name: &'static str,
    /// Entry of the metadata that holds the header.
    pub header: &'static str,
    /// Version of the header and of what the tensors mean. Files of another version are refused.
    pub version: u32,
}

impl CacheFormat {
    /// Writes a file, which appears under its name only when it is complete.
    pub(crate) fn write<H: Serialize>(&self, path: &Path, header: &H, tensors: Vec<(String, Tensor)>) -> Result<()> {
        let header = serde_json::to_string(header).map_err(Error::wrap)?;
        let metadata = HashMap::from([
            ("format".to_string(), self.name.to_string()),
            ("version".to_string(), self.version.to_string()),
            (self.header.to_string(), header),
        ]);
        let bytes = safetensors::serialize(tensors, Some(metadata))?;
        let name = path.file_name().ok_or_else(|| not_a_cache(path, "the path has no file name"))?;
        let mut partial_name = name.to_os_string();
        partial_name.push(".partial");
        let partial = path.with_file_name(partial_name);
        let written = std::fs::write(&partial, bytes).and_then(|()| std::fs::rename(&partial, path));
        written.map_err(|error| Error::from(error).with_path(path))
    }

    /// Reads the header and all tensors of a file, onto the CPU.
    pub(crate) fn read<H: DeserializeOwned>(&self, path: &Path) -> Result<(H, HashMap<String, Tensor>)> {
        let bytes = read_regular(path).map_err(|error| without_backtrace(Error::from(error).with_path(path)))?;
        let refuse = |reason: &dyn Display| Error::from(not_a_cache(path, reason));
        let (length, metadata) = SafeTensors::read_metadata(&bytes).map_err(|error| refuse(&error))?;
        check_header(&bytes, length).map_err(|error| refuse(&error))?;
        let entry = |key: &str| metadata.metadata().as_ref().and_then(|entries| entries.get(key));
        if entry("format").map(String::as_str) != Some(self.name) {
            return Err(refuse(&format!("its metadata lacks format = '{}'", self.name)));
        }
        let version = entry("version").map_or("none", String::as_str);
        if version != self.version.to_string() {
            return Err(refuse(&format!("format version {version}, this crate reads {}", self.version)));
        }
        let header = entry(self.header).ok_or_else(|| refuse(&format!("its metadata lacks '{}'", self.header)))?;
        let unique = serde_json::from_str::<UniqueKeys>(header);
        let header = unique.and_then(|_| serde_json::from_str(header)).map_err(|error| refuse(&error))?;
        let tensors = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu);
        let tensors = tensors.map_err(|error| refuse(&without_backtrace(error)))?;
        Ok((header, tensors))
    }
}

/// The error for a file that is not a cache.
pub(crate) fn not_a_cache(path: &Path, reason: impl Display) -> AttentionError {
    AttentionError::CacheFile { path: path.display().to_string(), reason: reason.to_string() }
}
