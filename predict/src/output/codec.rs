//! How arrays of VTK files are compressed.

use std::io::Write;

use anyhow::Result;
use clap::ValueEnum;
use flate2::Compression;
use flate2::write::ZlibEncoder;

/// What VTK takes for zlib itself.
const ZLIB_LEVEL: u32 = 5;

/// How arrays are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Codec {
    /// Smaller
    Zlib,
    /// Faster
    Lz4,
}

impl Codec {
    /// The name in options.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Zlib => "zlib",
            Self::Lz4 => "lz4",
        }
    }

    /// What VTK calls it.
    pub(crate) fn compressor(self) -> &'static str {
        match self {
            Self::Zlib => "vtkZLibDataCompressor",
            Self::Lz4 => "vtkLZ4DataCompressor",
        }
    }

    /// A block, compressed.
    pub(super) fn pack(self, block: &[u8]) -> Result<Vec<u8>> {
        Ok(match self {
            Self::Zlib => {
                let mut encoder = ZlibEncoder::new(Vec::new(), Compression::new(ZLIB_LEVEL));
                encoder.write_all(block)?;
                encoder.finish()?
            }
            Self::Lz4 => lz4_flex::block::compress(block),
        })
    }
}
