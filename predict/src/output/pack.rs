//! VTK files whose arrays are compressed when they are complete.
//!
//! How long a compressed array becomes is known only when all of it is there, so a run writes its files as they are and
//! packs each once, at constant memory and in one go, before the file gets its name.

use std::fs::File;
use std::io::{BufReader, BufWriter, Cursor, Read, Seek, SeekFrom, Write};
use std::path::Path;

use anyhow::{Context, Result};

use super::codec::Codec;
use super::disk::{Disk, open_itself, partial};
use super::document::Document;

/// Bytes of a block before it is compressed.
const BLOCK: u64 = 1 << 18;

/// How a file is packed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Packing {
    pub codec: Codec,
    pub document: Document,
    /// Where each array begins in the file as it is, and its bytes.
    pub arrays: Vec<(u64, u64)>,
}

/// The name of a file while it is packed.
pub(crate) fn packed_name(name: &str) -> String {
    format!("{name}.packed")
}

impl Packing {
    /// Bytes that the packed file takes at most.
    pub(crate) fn most_bytes(&self, whole: u64) -> u64 {
        // Numbers that do not compress grow by less than a hundredth, and each block has a word of its own.
        whole + whole / 100 + (8 << 10) * self.arrays.len() as u64
    }

    /// Writes a file packed, in the place of another of its name.
    pub(crate) fn pack(&self, disk: &impl Disk, whole: &Path, packed: &Path) -> Result<()> {
        let context = || format!("cannot write {}", packed.display());
        let name = packed.file_name().unwrap_or_default().to_string_lossy();
        let partial = partial(&packed.with_file_name(packed_name(&name)));
        disk.create(&partial, 0).with_context(context)?;
        let file = open_itself(File::options().write(true), &partial).with_context(context)?;
        let mut source = BufReader::new(File::open(whole).with_context(|| whole.display().to_string())?);
        self.write(&mut source, &mut BufWriter::with_capacity(1 << 20, file)).with_context(context)?;
        disk.sync(&partial).and_then(|()| disk.rename(&partial, packed)).with_context(context)
    }

    /// The packed form of a small file.
    pub(super) fn pack_in_memory(&self, whole: &[u8]) -> Result<Vec<u8>> {
        let mut packed = Cursor::new(Vec::new());
        self.write(&mut Cursor::new(whole), &mut packed)?;
        Ok(packed.into_inner())
    }

    fn write(&self, source: &mut (impl Read + Seek), target: &mut (impl Write + Seek)) -> Result<()> {
        // Offsets are filled in when they are known; until then they have the same width.
        let mut offsets = vec![0; self.arrays.len()];
        let opening = self.document.opening(&offsets, Some(self.codec));
        target.write_all(opening.as_bytes())?;
        let mut at = 0;
        for (offset, &(start, length)) in offsets.iter_mut().zip(&self.arrays) {
            *offset = at;
            source.seek(SeekFrom::Start(start))?;
            at += self.write_array(source, target, length)?;
        }
        target.write_all(self.document.closing().as_bytes())?;
        target.rewind()?;
        target.write_all(self.document.opening(&offsets, Some(self.codec)).as_bytes())?;
        target.flush()?;
        Ok(())
    }

    /// Writes an array and returns its bytes: the number of blocks, their size, that of a smaller last one or 0, the size
    /// of each when it is packed; then the blocks.
    fn write_array(&self, source: &mut impl Read, target: &mut (impl Write + Seek), length: u64) -> Result<u64> {
        let blocks = length.div_ceil(BLOCK);
        let mut words = vec![blocks, BLOCK, length % BLOCK];
        let begin = target.stream_position()?;
        let header = 8 * (words.len() as u64 + blocks);
        target.seek_relative(i64::try_from(header)?)?;
        let (mut left, mut written) = (length, header);
        while left > 0 {
            let mut block = vec![0; left.min(BLOCK) as usize];
            source.read_exact(&mut block)?;
            let packed = self.codec.pack(&block)?;
            target.write_all(&packed)?;
            words.push(packed.len() as u64);
            left -= block.len() as u64;
            written += packed.len() as u64;
        }
        target.seek(SeekFrom::Start(begin))?;
        target.write_all(&words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<_>>())?;
        target.seek(SeekFrom::Start(begin + written))?;
        Ok(written)
    }
}
