//! A name for the weights of a network, so that a cache is not used with those of another.

use candle_core::{DType, Device, Result};
use candle_nn::Linear;

/// FNV-1a, 64 bit: <http://www.isthe.com/chongo/tech/comp/fnv/>. Not for secrets; the same on every machine.
const OFFSET_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0000_0100_0000_01b3;

/// Hash of the numbers of some layers, as 16 hexadecimal digits. The output layers are small and differ in any two
/// trainings.
pub(super) fn weights_hash<'a>(layers: impl Iterator<Item = &'a Linear>) -> Result<String> {
    let mut hash = OFFSET_BASIS;
    for layer in layers {
        for tensor in std::iter::once(layer.weight()).chain(layer.bias()) {
            let numbers = tensor.to_dtype(DType::F32)?.to_device(&Device::Cpu)?.flatten_all()?.to_vec1::<f32>()?;
            for byte in numbers.into_iter().flat_map(f32::to_le_bytes) {
                hash = (hash ^ u64::from(byte)).wrapping_mul(PRIME);
            }
        }
    }
    Ok(format!("{hash:016x}"))
}
