//! One compressed block.

use std::io::Read;

use anyhow::{Context, Result, bail, ensure};
use flate2::read::ZlibDecoder;
use lzma_rust2::XzReader;

use super::header::Codec;

/// Bytes of a block; VTK's own are 32 KiB unless somebody asks for more.
const LARGEST: u64 = 1 << 30;

/// The most that a byte of LZ4 can stand for.
const LZ4_RATIO: u64 = 255;

/// KiB that unpacking LZMA may take: the strongest setting has a dictionary of 64 MiB.
const LZMA_MEMORY: u32 = 80 << 10;

impl Codec {
    /// Unpacks a block, which must have `size` bytes.
    pub(super) fn unpack(self, packed: &[u8], size: u64) -> Result<Vec<u8>> {
        ensure!(size <= LARGEST, "blocks may have {LARGEST} bytes, got {size}");
        let bytes = match self {
            Self::Zlib => read(ZlibDecoder::new(packed), size),
            Self::Lzma => read(XzReader::new_mem_limit(packed, false, LZMA_MEMORY), size),
            Self::Lz4 => {
                let most = (packed.len() as u64).saturating_mul(LZ4_RATIO);
                if size > most {
                    bail!("its block of {} bytes cannot stand for {size}", packed.len());
                }
                let mut bytes = vec![0; size as usize];
                let unpacked = lz4_flex::block::decompress_into(packed, &mut bytes).context("its block is damaged")?;
                bytes.truncate(unpacked);
                Ok(bytes)
            }
        }?;
        ensure!(bytes.len() as u64 == size, "a block must hold {size} bytes, got {}", bytes.len());
        Ok(bytes)
    }
}

/// Memory grows with what really comes, whatever a header promises.
fn read(from: impl Read, size: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(size + 1).read_to_end(&mut bytes).context("its block is damaged")?;
    Ok(bytes)
}
