//! Positions, wavelengths and head_dims of RoPE.

use candle_core::{DType, Device, Result, Tensor};
use candle_mixed_attention::{Rope, RopeConfig};

use crate::small::{random, same};
use crate::support::refusal::refused;

#[test]
fn positions_and_head_dims_of_rope() -> Result<()> {
    let rope = Rope::new(&RopeConfig::new(16), &Device::Cpu)?;
    refused(
        "two coordinates of three",
        rope.frequencies(&random(&[1, 7, 2])?),
        &["positions", "[batch, tokens, 3]", "[1, 7, 2]"],
    );
    refused("positions with two axes", rope.frequencies(&random(&[7, 3])?), &["[batch, tokens, 3]", "[7, 3]"]);
    refused(
        "no pair for each coordinate",
        Rope::new(&RopeConfig::new(4), &Device::Cpu),
        &["4 channels for 3 coordinates"],
    );
    refused("an odd head_dim", Rope::new(&RopeConfig::new(15), &Device::Cpu), &["head_dim", "even", "15"]);
    let config = RopeConfig { max_wavelength: f64::NAN, ..RopeConfig::new(16) };
    refused("a wavelength that is no number", Rope::new(&config, &Device::Cpu), &["max_wavelength", "NaN"]);
    let omega = Tensor::zeros(3, DType::F32, &Device::Cpu)?;
    refused("omega of another length", Rope::with_omega(&RopeConfig::new(16), &omega), &["omega", "[2]", "[3]"]);

    // (head_dim, pairs per coordinate, channels that are not rotated)
    for (head_dim, pairs, rest) in [(16, 2, 4), (20, 3, 2), (64, 10, 4), (128, 21, 2)] {
        let rope = Rope::new(&RopeConfig::new(head_dim), &Device::Cpu)?;
        assert_eq!(rope.omega().dims(), [pairs], "head_dim {head_dim}");
        let table = rope.frequencies(&random(&[1, 5, 3])?)?.table().clone();
        let unrotated = table.narrow(2, (head_dim - rest) / 2, rest / 2)?;
        let identity = Tensor::new(&[1f32, 0.], &Device::Cpu)?.broadcast_as(unrotated.shape())?;
        same("unrotated channels", &unrotated, &identity.contiguous()?);
    }

    let positions = (random(&[1, 7, 3])? * 10.)?.round()?;
    let angles = rope.frequencies(&positions)?;
    for dtype in [DType::F64, DType::I64] {
        let got = rope.frequencies(&positions.to_dtype(dtype)?)?;
        assert_eq!(got.table().dtype(), DType::F32);
        same("positions of another dtype", got.table(), angles.table());
    }
    Ok(())
}
