//! Results for NumPy: the tensors of a safetensors file as one `.npz`.
//!
//! A zip file ends with the checksums of its members, so it cannot be laid out ahead; it is made from the finished
//! safetensors file instead, at constant memory and in one go.

use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result};
use npyz::WriterBuilder;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipWriter};

use super::FieldSpec;
use super::disk::{Disk, open_itself, partial};
use super::safetensors::POSITIONS;

/// Bytes that are copied at once.
const BUFFER: usize = 1 << 20;

/// Room for the headers of a member.
const MEMBER_BYTES: u64 = 1024;

/// Bytes of the file at most.
pub(super) fn npz_bytes(points: u64, fields: &[FieldSpec]) -> u64 {
    let components = |field: &FieldSpec| MEMBER_BYTES + points * 4 * field.components as u64;
    MEMBER_BYTES + components(&FieldSpec::new(POSITIONS, 3)) + fields.iter().map(components).sum::<u64>()
}

/// Writes `positions` and the fields of a file that [`safetensors_layout`](super::safetensors_layout) describes.
pub(crate) fn write_npz(
    disk: &impl Disk,
    safetensors: &Path,
    npz: &Path,
    points: u64,
    fields: &[FieldSpec],
) -> Result<()> {
    let mut source = BufReader::new(File::open(safetensors).with_context(|| safetensors.display().to_string())?);
    skip_header(&mut source).with_context(|| safetensors.display().to_string())?;

    let partial = partial(npz);
    let context = || format!("cannot write {}", npz.display());
    disk.create(&partial, 0).with_context(context)?;
    let file = open_itself(File::options().write(true), &partial).with_context(context)?;
    let mut archive = ZipWriter::new(BufWriter::with_capacity(BUFFER, file));
    // A fixed date, so that equal results are equal files.
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Stored)
        .last_modified_time(DateTime::default())
        .large_file(true);
    let positions = FieldSpec::new(POSITIONS, 3);
    for field in std::iter::once(&positions).chain(fields) {
        archive.start_file(format!("{}.npy", field.name), options)?;
        let header = npyz::WriteOptions::new_header_only()
            .dtype(npyz::DType::new_scalar("<f4".parse().map_err(anyhow::Error::msg)?))
            .shape(&[points, field.components as u64])
            .writer(&mut archive);
        header.write_header_only().with_context(context)?;
        let bytes = points * 4 * field.components as u64;
        let copied = std::io::copy(&mut std::io::Read::take(&mut source, bytes), &mut archive).with_context(context)?;
        anyhow::ensure!(copied == bytes, "{}: ends early in '{}'", safetensors.display(), field.name);
    }
    archive.finish()?.flush().with_context(context)?;
    disk.sync(&partial).and_then(|()| disk.rename(&partial, npz)).with_context(context)
}

/// The tensors follow the header in the order of the layout.
fn skip_header(source: &mut BufReader<File>) -> Result<()> {
    let mut length = [0; 8];
    std::io::Read::read_exact(source, &mut length)?;
    source.seek_relative(i64::try_from(u64::from_le_bytes(length))?)?;
    Ok(())
}
