//! Calls that do not fit their plan, batches of one row, and who runs a call.

use candle_core::{D, DType, Device, Result, Tensor};
use candle_mixed_attention::{
    AttentionOptions, Backend, KeyPadding, MixedAttention, MixedAttentionConfig, RopeFrequencies, SimdLevel,
};

use crate::small::{HEAD_DIM, WIDTH, frequencies, layer, mask, plan, random, same, small_plan, weights};
use crate::support::compare::numbers;
use crate::support::refusal::refused;

#[test]
fn calls_that_do_not_fit_are_refused() -> Result<()> {
    let plan = small_plan();
    let none = AttentionOptions::default;
    let x = random(&[2, 7, WIDTH])?;
    let rope =
        |batch, tokens, head_dim| Ok::<_, candle_core::Error>(none().rope(&frequencies(batch, tokens, head_dim)?));
    let padding = |rows: &[&[u8]]| Ok::<_, candle_core::Error>(none().key_padding(mask(rows)?));
    let plain = layer(false)?;
    let rotating = layer(true)?;

    refused("RoPE on, no frequencies", rotating.forward(&x, &plan, &none()), &["use_rope = true", "frequencies"]);
    refused("RoPE off, frequencies", plain.forward(&x, &plan, &rope(1, 7, HEAD_DIM)?), &["use_rope = false"]);
    refused(
        "frequencies of 6 tokens",
        rotating.forward(&x, &plan, &rope(1, 6, HEAD_DIM)?),
        &["6 tokens", "7", "a 3, b 4"],
    );
    refused("frequencies of one token", rotating.forward(&x, &plan, &rope(1, 1, HEAD_DIM)?), &["1 tokens", "7"]);
    refused("frequencies of another head_dim", rotating.forward(&x, &plan, &rope(1, 7, 8)?), &["head_dim 16"]);
    refused("frequencies of 3 rows", rotating.forward(&x, &plan, &rope(3, 7, HEAD_DIM)?), &["batch size 3", "2"]);
    refused(
        "angles with two axes",
        RopeFrequencies::from_angles(&random(&[7, 8])?),
        &["[batch, tokens, head_dim / 2]"],
    );

    let wide = x.to_dtype(DType::F64)?;
    refused("x of another dtype", plain.forward(&wide, &plan, &none()), &["x has dtype F64", "F32", "weights"]);
    let ones = Tensor::ones((1, 7), DType::F32, &Device::Cpu)?;
    refused("a float mask", KeyPadding::from_mask(&ones), &["F32", "u8"]);
    let ones = Tensor::ones((1, 1, 7), DType::U8, &Device::Cpu)?;
    refused("a mask with three axes", KeyPadding::from_mask(&ones), &["[batch, tokens]", "[1, 1, 7]"]);
    refused(
        "a mask of 6 tokens",
        plain.forward(&x, &plan, &padding(&[&[1; 6]])?),
        &["key_padding", "6", "7", "a 3, b 4"],
    );
    refused(
        "a mask of 3 rows",
        plain.forward(&x, &plan, &padding(&[&[1; 7], &[1; 7], &[1; 7]])?),
        &["key_padding", "3", "2"],
    );

    refused("8 tokens", plain.forward(&random(&[1, 8, WIDTH])?, &plan, &none()), &["x has 8 tokens", "7", "a 3, b 4"]);
    refused(
        "another width",
        plain.forward(&random(&[1, 7, 16])?, &plan, &none()),
        &["[batch, tokens, 32]", "[1, 7, 16]"],
    );
    refused("two axes", plain.forward(&random(&[7, WIDTH])?, &plan, &none()), &["[batch, tokens, 32]", "[7, 32]"]);
    let indivisible = MixedAttention::new(&MixedAttentionConfig::new(33, 2), weights());
    refused("heads that do not divide the width", indivisible, &["33", "num_heads 2"]);
    for scale in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        refused(
            "a scale out of range",
            plain.forward(&x, &plan, &none().scale(scale)),
            &["scale", "positive and finite"],
        );
    }
    Ok(())
}

#[test]
fn batches_of_one_serve_every_row() -> Result<()> {
    // Two equally large patterns, which the package cannot do with a mask of one row.
    let plan = plan(&[("a", 3), ("b", 3)], &["a -> a", "b -> b"]);
    let row: &[u8] = &[1, 0, 1, 1, 1, 0];
    let x = random(&[2, 6, WIDTH])?;
    let rotating = layer(true)?;
    let one = frequencies(1, 6, HEAD_DIM)?;
    let two = RopeFrequencies::from_angles(&{
        let table = one.table();
        // Angles from (cos, sin), doubled along the batch.
        let (sine, cosine) = (table.narrow(D::Minus1, 1, 1)?, table.narrow(D::Minus1, 0, 1)?);
        let angle = |(sine, cosine): (f64, f64)| sine.atan2(cosine) as f32;
        let angles: Vec<f32> = numbers(&sine)?.into_iter().zip(numbers(&cosine)?).map(angle).collect();
        Tensor::from_vec(angles, (1, 6, HEAD_DIM / 2), &Device::Cpu)?.repeat((2, 1, 1))?
    })?;
    let options = AttentionOptions::default().rope(&one).key_padding(mask(&[row])?);
    let explicit = AttentionOptions::default().rope(&two).key_padding(mask(&[row, row])?);
    same("broadcast", &rotating.forward(&x, &plan, &options)?, &rotating.forward(&x, &plan, &explicit)?);
    Ok(())
}

#[test]
fn only_the_kernel_of_the_cpu_asks_for_its_instructions() -> Result<()> {
    let all = [SimdLevel::Scalar, SimdLevel::Neon, SimdLevel::Avx2, SimdLevel::Avx512, SimdLevel::Avx512Bf16];
    let absent = *all.iter().find(|level| !SimdLevel::available().contains(level)).expect("no CPU has all");
    let (layer, x, plan) = (layer(false)?, random(&[1, 7, WIDTH])?, small_plan());
    let options = AttentionOptions::default().simd(absent);
    let words = ["SIMD level", &absent.to_string(), "scalar"];
    refused("instructions of another CPU", layer.forward(&x, &plan, &options.clone().backend(Backend::Fused)), &words);
    layer.forward(&x, &plan, &options.backend(Backend::Reference))?;
    Ok(())
}
