//! `rope`: angles of positions, and the rotation of a tensor by them.

use anyhow::{Result, anyhow};
use candle_core::{DType, Tensor};
use candle_mixed_attention::{
    AttentionPattern, AttentionPlan, Rope, RopeConfig, RopeFrequencies, TokenSpec, mixed_attention,
};
use serde::de::IgnoredAny;

use super::{Case, Setting, Tensors, check, parse_config};
use crate::support::compare::check_close;

pub fn run(case: &Case, setting: &Setting) -> Result<()> {
    let (config, IgnoredAny) = parse_config::<RopeConfig, IgnoredAny>(&case.config, &[])?;
    let tensors = Tensors::load(case, setting)?;
    let positions = tensors.raw("in.pos")?;
    let frequencies = tensors.frequencies(&config, "in.pos")?;
    check_angles(&frequencies, tensors.raw("out.theta")?, setting)?;

    // The wave numbers that we compute ourselves may differ from the stored ones in the last bits.
    let computed = Rope::new(&config, positions.device())?;
    let relative = ((computed.omega() - tensors.raw("w.omega")?)? / tensors.raw("w.omega")?)?;
    check_close("computed wave numbers", &relative, &relative.zeros_like()?, 1e-6).map_err(|error| anyhow!(error))?;

    let x = tensors.get("in.x")?;
    check(&tensors, setting, "out.y", &frequencies.rotate(&x)?)?;
    rotation_inside_the_kernel(&x, &frequencies, setting)
}

/// cos and sin of the stored angles.
fn check_angles(frequencies: &RopeFrequencies, theta: &Tensor, setting: &Setting) -> Result<()> {
    let expected = RopeFrequencies::from_angles(theta)?;
    // An angle of 1,000 radians has an f32 rounding error of 3e-5, which the stored tolerance knows about.
    let tolerance = setting.tolerance.max(1e-6);
    check_close("cos and sin", frequencies.table(), expected.table(), tolerance).map_err(|error| anyhow!(error))
}

/// Queries and keys rotated inside the kernel give what rotating them first gives.
fn rotation_inside_the_kernel(x: &Tensor, frequencies: &RopeFrequencies, setting: &Setting) -> Result<()> {
    let plan = AttentionPlan::new(
        [TokenSpec::new("tokens", x.dims()[2])],
        [AttentionPattern::queries(["tokens"]).attend_to(["tokens"])],
    )?;
    let options = setting.runner.options();
    let inside = mixed_attention(x, x, x, &plan, &options.clone().rope(frequencies))?;
    let wide = x.to_dtype(DType::F32)?;
    let rotated = frequencies.rotate(&wide)?;
    let outside = mixed_attention(&rotated, &rotated, &wide, &plan, &options)?;
    let tolerance = match setting.dtype {
        DType::F32 => 2e-5,
        DType::F16 => 1e-2,
        _ => 8e-2,
    };
    check_close("rotation inside the kernel", &inside, &outside, tolerance).map_err(|error| anyhow!(error))
}
