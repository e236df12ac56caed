//! Arrays in a `.npz` file, which is a zip archive of `.npy` files.

use std::fs::File;
use std::io::{BufReader, Seek, SeekFrom};

use anyhow::{Context, Result, bail};
use zip::{CompressionMethod, ZipArchive};

use super::npy::NpyRows;

/// What the names of arrays end with in the archive.
const SUFFIX: &str = ".npy";

/// Opens an array: the named one, or else the only one. One that is stored as it is, as `numpy.savez` does, is read where
/// it lies; one that is compressed is unpacked into a temporary file first.
///
/// # Errors
/// A file that is no such archive, or has no such array.
pub(super) fn open(file: File, name: Option<&str>) -> Result<NpyRows> {
    let mut archive = ZipArchive::new(BufReader::new(file.try_clone()?)).context("not a readable .npz file")?;
    let names: Vec<String> = archive.file_names().filter_map(|name| Some(name.ok()?.into_owned())).collect();
    let arrays: Vec<&str> = names.iter().filter_map(|name| name.strip_suffix(SUFFIX)).collect();
    let array = match (name, &arrays[..]) {
        (Some(name), _) if arrays.contains(&name) => name,
        (Some(name), _) => bail!("there is no array '{name}'; it holds {arrays:?}"),
        (None, [only]) => only,
        (None, _) => bail!("expected one array, or a name as in 'points.npz#name'; it holds {arrays:?}"),
    };
    let context = || format!("array '{array}'");
    let mut entry = archive.by_name(&format!("{array}{SUFFIX}")).with_context(context)?;
    let size = entry.size();
    if entry.compression() == CompressionMethod::Stored {
        let start = entry.data_start().with_context(context)?;
        drop(entry);
        let end = start.checked_add(size).filter(|&end| file.metadata().is_ok_and(|file| end <= file.len()));
        let end = end.with_context(|| format!("truncated: array '{array}' is not all there"))?;
        return NpyRows::within(file, start..end).with_context(context);
    }
    let mut unpacked = tempfile::tempfile().context("a temporary file for a compressed array")?;
    // Never more than the archive promises.
    std::io::copy(&mut std::io::Read::take(&mut entry, size), &mut unpacked).with_context(context)?;
    unpacked.seek(SeekFrom::Start(0))?;
    NpyRows::new(unpacked).with_context(context)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::path::Path;

    use npyz::WriterBuilder;
    use zip::ZipWriter;
    use zip::write::SimpleFileOptions;

    use super::*;
    use crate::input::Input;

    fn write(path: &Path, arrays: &[(&str, &[f32])], method: CompressionMethod) {
        let mut archive = ZipWriter::new(File::create(path).unwrap());
        for (name, values) in arrays {
            archive.start_file(format!("{name}.npy"), SimpleFileOptions::default().compression_method(method)).unwrap();
            let mut bytes = Vec::new();
            let options = npyz::WriteOptions::new().default_dtype().shape(&[values.len() as u64 / 3, 3]);
            let mut writer = options.writer(&mut bytes).begin_nd().unwrap();
            writer.extend(*values).unwrap();
            writer.finish().unwrap();
            archive.write_all(&bytes).unwrap();
        }
        archive.finish().unwrap();
    }

    #[test]
    fn arrays_are_read_whether_they_are_compressed_or_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("points.npz");
        let values: Vec<f32> = (0..30).map(|at| at as f32).collect();
        for method in [CompressionMethod::Stored, CompressionMethod::Deflated] {
            write(&path, &[("other", &[0.0; 3]), ("points", &values)], method);
            let mut input = Input::open(&format!("{}#points", path.display()), None).unwrap();
            assert_eq!(input.len(), 10);
            assert_eq!(input.read(4..6).unwrap(), [[12.0, 13.0, 14.0], [15.0, 16.0, 17.0]]);
            assert_eq!(input.read(0..1).unwrap(), [[0.0, 1.0, 2.0]]);
            for (argument, expected) in [("", "expected one array, or a name"), ("#none", "there is no array 'none'")] {
                let message =
                    format!("{:#}", Input::open(&format!("{}{argument}", path.display()), None).err().unwrap());
                assert!(message.contains(expected), "{message}");
            }
            write(&path, &[("arr_0", &values)], method);
            assert_eq!(Input::open(path.to_str().unwrap(), None).unwrap().len(), 10);
            let bytes = std::fs::read(&path).unwrap();
            std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
            assert!(Input::open(path.to_str().unwrap(), None).is_err());
        }
    }
}
