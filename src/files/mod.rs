//! Files that somebody else may have made: what may be opened, how much of it is read, and that no key stands twice.

mod unique_keys;

use std::fs::File;
use std::io::{Error, ErrorKind, Read, Result};
use std::path::Path;

pub use unique_keys::UniqueKeys;

/// Bytes of a text at most: descriptions and indexes of the largest networks stay far below.
const LONGEST_TEXT: u64 = 64 << 20;

/// Bytes of the number in front of the header of a safetensors file.
pub(crate) const HEADER_LENGTH: usize = 8;

/// Opens a file, unless it is something that need not end or waits for a writer.
///
/// # Errors
/// The file cannot be opened, or is a folder, a pipe or a device.
pub fn open_regular(path: &Path) -> Result<File> {
    let check = |metadata: std::fs::Metadata| match metadata.file_type() {
        kind if kind.is_file() => Ok(()),
        kind if kind.is_dir() => Err(Error::new(ErrorKind::IsADirectory, "it is a directory")),
        _ => Err(Error::new(ErrorKind::InvalidInput, "it is not a regular file")),
    };
    // Before it is opened, because opening a pipe waits.
    check(std::fs::metadata(path)?)?;
    let file = File::open(path)?;
    check(file.metadata()?)?;
    Ok(file)
}

/// Reads a whole regular file.
pub(crate) fn read_regular(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_regular(path)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Reads a regular file of text.
pub(crate) fn read_text(path: &Path) -> Result<String> {
    let file = open_regular(path)?;
    let length = file.metadata()?.len();
    if length > LONGEST_TEXT {
        let reason = format!("it has {length} bytes, more than the {LONGEST_TEXT} of any such text");
        return Err(Error::new(ErrorKind::FileTooLarge, reason));
    }
    let mut bytes = Vec::new();
    file.take(LONGEST_TEXT).read_to_end(&mut bytes)?;
    String::from_utf8(bytes).map_err(|error| {
        let reason = format!("it is not UTF-8 from byte {} on", error.utf8_error().valid_up_to());
        Error::new(ErrorKind::InvalidData, reason)
    })
}

/// Checks that the header of a safetensors file names nothing twice. `length` is that of the header, which was parsed
/// before.
pub(crate) fn check_header(file: &[u8], length: usize) -> serde_json::Result<()> {
    let header = file.get(HEADER_LENGTH..).and_then(|rest| rest.get(..length)).unwrap_or_default();
    serde_json::from_slice::<UniqueKeys>(header).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let refusal = |path: &Path| open_regular(path).unwrap_err().to_string();
        assert!(refusal(folder.path()).contains("directory"));
        assert!(refusal(&folder.path().join("none")).contains("No such file"));
        #[cfg(unix)]
        {
            assert!(refusal(Path::new("/dev/zero")).contains("not a regular file"));
            let pipe = folder.path().join("pipe");
            let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
            assert!(made.success() && refusal(&pipe).contains("not a regular file"));
        }
    }

    #[test]
    fn texts_are_of_limited_length_and_utf8() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("text");
        std::fs::write(&path, b"abc\xff").unwrap();
        assert_eq!(read_text(&path).unwrap_err().to_string(), "it is not UTF-8 from byte 3 on");
        File::create(&path).unwrap().set_len(LONGEST_TEXT + 1).unwrap();
        assert!(read_text(&path).unwrap_err().to_string().contains("more than"));
        std::fs::write(&path, "ab").unwrap();
        assert_eq!(read_text(&path).unwrap(), "ab");
    }
}
