//! Numbers of candle's dtypes in memory.

use emulator::{DeviceMemory, Finding};
use half::{bf16, f16};

/// What an element is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Number {
    U8,
    U32,
    I64,
    F16,
    Bf16,
    F32,
    F64,
}

impl Number {
    /// By the name in those of candle's kernels.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "u8" => Self::U8,
            "u32" => Self::U32,
            "i64" => Self::I64,
            "f16" => Self::F16,
            "bf16" => Self::Bf16,
            "f32" => Self::F32,
            "f64" => Self::F64,
            _ => return None,
        })
    }

    pub(crate) fn bytes(self) -> usize {
        match self {
            Self::U8 => 1,
            Self::F16 | Self::Bf16 => 2,
            Self::U32 | Self::F32 => 4,
            Self::I64 | Self::F64 => 8,
        }
    }

    /// The value of an element; of integers beyond 2⁵³ the nearest.
    pub(crate) fn decode(self, bytes: &[u8]) -> f64 {
        let read = |bytes: &[u8]| bytes.iter().rev().fold(0u64, |bits, &byte| bits << 8 | u64::from(byte));
        let bits = read(&bytes[..self.bytes()]);
        match self {
            Self::U8 | Self::U32 => bits as f64,
            Self::I64 => bits as i64 as f64,
            Self::F16 => f16::from_bits(bits as u16).into(),
            Self::Bf16 => bf16::from_bits(bits as u16).into(),
            Self::F32 => f32::from_bits(bits as u32).into(),
            Self::F64 => f64::from_bits(bits),
        }
    }

    /// The element nearest to a value.
    pub(crate) fn encode(self, value: f64) -> Vec<u8> {
        match self {
            Self::U8 => vec![value as u8],
            Self::U32 => (value as u32).to_le_bytes().to_vec(),
            Self::I64 => (value as i64).to_le_bytes().to_vec(),
            Self::F16 => f16::from_f64(value).to_le_bytes().to_vec(),
            Self::Bf16 => bf16::from_f64(value).to_le_bytes().to_vec(),
            Self::F32 => (value as f32).to_le_bytes().to_vec(),
            Self::F64 => value.to_le_bytes().to_vec(),
        }
    }

    /// The elements at these places behind an address.
    pub(crate) fn read(self, memory: &DeviceMemory, address: u64, places: &[usize]) -> Result<Vec<f64>, Finding> {
        let bytes = self.bytes();
        let is_dense = places.iter().enumerate().all(|(index, &place)| index == place);
        if is_dense {
            let all = memory.read(address, places.len() * bytes)?;
            return Ok(all.chunks(bytes).map(|element| self.decode(element)).collect());
        }
        let element = |&place: &usize| Ok(self.decode(&memory.read(address + (place * bytes) as u64, bytes)?));
        places.iter().map(element).collect()
    }

    /// Writes elements, one after the other.
    pub(crate) fn write(self, memory: &mut DeviceMemory, address: u64, values: &[f64]) -> Result<(), Finding> {
        let bytes: Vec<u8> = values.iter().flat_map(|&value| self.encode(value)).collect();
        memory.write(address, &bytes)
    }
}
