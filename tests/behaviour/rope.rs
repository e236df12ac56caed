//! Positions, wavelengths and head_dims of RoPE.

use candle_core::{DType, Device, Result, Tensor};
use candle_mixed_attention::{
    AttentionOptions, Backend, Rope, RopeConfig, RopeFrequencies, RopeLayout, mixed_attention,
};

use crate::small::{HEAD_DIM, HEADS, WIDTH, layer, plan, random, same};
use crate::support::backends::runners;
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

/// Rotation by the definition, channel by channel in f64: channel `i` with `i + head_dim/2`.
#[test]
fn halves_are_pairs_where_asked_for() -> Result<()> {
    let (batch, heads, tokens, head_dim) = (2, 3, 5, 8);
    let angles = random(&[batch, tokens, head_dim / 2])?;
    let frequencies = RopeFrequencies::from_angles(&angles)?.with_layout(RopeLayout::HalfSplit);
    let x = random(&[batch, heads, tokens, head_dim])?;
    let (theta, from) = (angles.to_vec3::<f32>()?, x.flatten_all()?.to_vec1::<f32>()?);
    let mut want = vec![0f32; from.len()];
    for (row, head) in (0..batch).flat_map(|row| (0..heads).map(move |head| (row, head))) {
        for (token, pair) in (0..tokens).flat_map(|token| (0..head_dim / 2).map(move |pair| (token, pair))) {
            let first = ((row * heads + head) * tokens + token) * head_dim + pair;
            let second = first + head_dim / 2;
            let (sin, cos) = f64::from(theta[row][token][pair]).sin_cos();
            let (x0, x1) = (f64::from(from[first]), f64::from(from[second]));
            want[first] = (x0 * cos - x1 * sin) as f32;
            want[second] = (x0 * sin + x1 * cos) as f32;
        }
    }
    let want = Tensor::from_vec(want, x.dims(), x.device())?;
    same("rotated", &frequencies.rotate(&x)?, &want);
    let neighbours = frequencies.clone().with_layout(RopeLayout::Interleaved).rotate(&x)?;
    assert!((neighbours - want)?.abs()?.max_all()?.to_scalar::<f32>()? > 0.1);
    refused(
        "both layouts in one",
        RopeFrequencies::cat(&[&frequencies, &frequencies.clone().with_layout(RopeLayout::Interleaved)]),
        &["layouts", "HalfSplit", "Interleaved"],
    );
    Ok(())
}

/// The op on every backend, and a later pass past the cache of a layer, whose keys are rotated already.
#[test]
fn attention_rotates_halves() -> Result<()> {
    let angles = random(&[1, 7, HEAD_DIM / 2])?;
    let frequencies = RopeFrequencies::from_angles(&angles)?.with_layout(RopeLayout::HalfSplit);
    let first = plan(&[("anchors", 5), ("queries", 2)], &["anchors queries -> anchors"]);
    let heads = || random(&[2, HEADS, 7, HEAD_DIM]);
    let (q, k, v) = (heads()?, heads()?, heads()?);
    let options = || AttentionOptions::default().backend(Backend::Reference);
    let want = mixed_attention(&frequencies.rotate(&q)?, &frequencies.rotate(&k)?, &v, &first, &options())?;
    for runner in runners().into_iter().filter(|runner| runner.device.is_cpu()) {
        let got = mixed_attention(&q, &k, &v, &first, &runner.options().rope(&frequencies))?;
        same(&runner.name, &got, &want);
    }

    let layer = layer(true)?;
    let x = random(&[2, 7, WIDTH])?;
    let (whole, cache) = layer.forward_and_cache(&x, &first, &AttentionOptions::default().rope(&frequencies))?;
    let step = first.with_cached(["anchors"], [("queries", 2)]).expect("a valid step");
    let later = AttentionOptions::default().rope(&frequencies.narrow(5, 2)?);
    let y = layer.forward_from_cache(&x.narrow(1, 5, 2)?, &step, &cache, &later)?;
    same("later pass", &y, &whole.narrow(1, 5, 2)?);
    Ok(())
}
