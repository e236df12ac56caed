//! How a file writes its numbers.

use anyhow::{Result, bail};
use roxmltree::Node;

/// What the first tag of a file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(crate) big_endian: bool,
    /// Bytes of the numbers in front of each array.
    pub(crate) word: usize,
    pub(crate) codec: Option<Codec>,
}

/// How arrays are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Codec {
    Zlib,
    Lz4,
    Lzma,
}

impl Header {
    /// Reads the attributes of `VTKFile`. Files of old versions lack some of them.
    pub(super) fn read(root: Node) -> Result<Self> {
        let big_endian = match root.attribute("byte_order") {
            Some("BigEndian") => true,
            Some("LittleEndian") | None => false,
            Some(other) => bail!("byte_order must be LittleEndian or BigEndian, got '{other}'"),
        };
        let word = match root.attribute("header_type") {
            Some("UInt32") | None => 4,
            Some("UInt64") => 8,
            Some(other) => bail!("header_type must be UInt32 or UInt64, got '{other}'"),
        };
        let codec = match root.attribute("compressor") {
            None | Some("") => None,
            Some("vtkZLibDataCompressor") => Some(Codec::Zlib),
            Some("vtkLZ4DataCompressor") => Some(Codec::Lz4),
            Some("vtkLZMADataCompressor") => Some(Codec::Lzma),
            Some(other) => bail!("compressor must be that of zlib, lz4 or lzma, got '{other}'"),
        };
        Ok(Self { big_endian, word, codec })
    }

    /// A number of the headers of arrays.
    pub(super) fn word(&self, bytes: &[u8]) -> u64 {
        let fold = |value: u64, byte: &u8| value << 8 | u64::from(*byte);
        if self.big_endian { bytes.iter().fold(0, fold) } else { bytes.iter().rev().fold(0, fold) }
    }
}
