//! How a file writes its numbers.

use anyhow::{Result, bail};
use roxmltree::Node;

/// What the first tag of a file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub big_endian: bool,
    /// Bytes of the numbers in front of each array.
    pub word: usize,
    pub codec: Option<Codec>,
}

/// How arrays are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Codec {
    Zlib,
    Lz4,
    Lzma,
}

/// Kinds of numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Element {
    Int8,
    UInt8,
    Int16,
    UInt16,
    Int32,
    UInt32,
    Int64,
    UInt64,
    Float32,
    Float64,
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

impl Element {
    /// The kind with a name; none for texts.
    pub(super) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "Int8" => Self::Int8,
            "UInt8" => Self::UInt8,
            "Int16" => Self::Int16,
            "UInt16" => Self::UInt16,
            "Int32" => Self::Int32,
            "UInt32" => Self::UInt32,
            "Int64" => Self::Int64,
            "UInt64" => Self::UInt64,
            "Float32" => Self::Float32,
            "Float64" => Self::Float64,
            _ => return None,
        })
    }

    /// Bytes of a number.
    pub(super) fn size(self) -> u64 {
        match self {
            Self::Int8 | Self::UInt8 => 1,
            Self::Int16 | Self::UInt16 => 2,
            Self::Int32 | Self::UInt32 | Self::Float32 => 4,
            Self::Int64 | Self::UInt64 | Self::Float64 => 8,
        }
    }

    /// Whether the numbers have no fractions.
    pub(super) fn is_whole(self) -> bool {
        !matches!(self, Self::Float32 | Self::Float64)
    }
}
