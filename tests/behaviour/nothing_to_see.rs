//! Queries without visible keys, keys without weight, masked tokens, sizes of zero.

use candle_core::{DType, Device, Result, Tensor};
use candle_mixed_attention::{AttentionOptions, Backend, mixed_attention};

use crate::small::{HEAD_DIM, HEADS, WIDTH, bias_of, frequencies, layer, mask, plan, random, same, small_plan};
use crate::support::backends::runners;
use crate::support::compare::numbers;

#[test]
fn nothing_to_attend_to_gives_the_bias() -> Result<()> {
    let layer = layer(false)?;
    let bias = bias_of(&layer)?;
    let none = AttentionOptions::default;

    let empty_keys = plan(&[("a", 3), ("nothing", 0)], &["a nothing -> nothing"]);
    let y = layer.forward(&random(&[2, 3, WIDTH])?, &empty_keys, &none())?;
    same("key groups of size 0", &y, &bias.broadcast_as((2, 3, WIDTH))?);

    let options = none().key_padding(mask(&[&[0, 0, 0, 1, 1, 1, 1], &[1; 7]])?);
    let x = random(&[2, 7, WIDTH])?;
    let y = layer.forward(&x, &small_plan(), &options)?;
    same("all keys of one sample masked", &y.narrow(0, 0, 1)?, &bias.broadcast_as((1, 7, WIDTH))?);
    let visible = layer.forward(&x, &small_plan(), &none())?;
    same("the other sample", &y.narrow(0, 1, 1)?, &visible.narrow(0, 1, 1)?);
    Ok(())
}

#[test]
fn sizes_of_zero_work_everywhere() -> Result<()> {
    for use_rope in [false, true] {
        let layer = layer(use_rope)?;
        let options = |batch: usize, tokens: usize| -> Result<AttentionOptions> {
            let none = AttentionOptions::default();
            Ok(if use_rope { none.rope(&frequencies(batch, tokens, HEAD_DIM)?) } else { none })
        };
        let empty = plan(&[("a", 0), ("b", 0)], &["a b -> a"]);
        let y = layer.forward(&random(&[1, 0, WIDTH])?, &empty, &options(1, 0)?)?;
        assert_eq!(y.dims(), [1, 0, WIDTH], "0 tokens, RoPE {use_rope}");
        let y = layer.forward(&random(&[0, 7, WIDTH])?, &small_plan(), &options(0, 7)?)?;
        assert_eq!(y.dims(), [0, 7, WIDTH], "batch 0, RoPE {use_rope}");
        let equal = plan(&[("a", 3), ("b", 3)], &["a -> a", "b -> b"]);
        let y = layer.forward(&random(&[0, 6, WIDTH])?, &equal, &options(0, 6)?)?;
        assert_eq!(y.dims(), [0, 6, WIDTH], "batch 0, two patterns, RoPE {use_rope}");
    }
    for runner in runners() {
        for dtype in [DType::F32, DType::F16, DType::BF16, DType::F64] {
            let options = match (dtype, runner.backend) {
                (DType::F64, Backend::Fused) => continue,
                _ => runner.options(),
            };
            for (batch, sizes) in [(0, [3, 4]), (2, [0, 4]), (2, [0, 0]), (0, [0, 0])] {
                let plan = plan(&[("a", sizes[0]), ("b", sizes[1])], &["a b -> a"]);
                let operand = Tensor::ones((batch, HEADS, plan.len(), HEAD_DIM), dtype, &Device::Cpu)?;
                // candle cannot make ones of an empty tensor on a GPU.
                let operand = operand.to_device(&runner.device)?;
                let y = mixed_attention(&operand, &operand, &operand, &plan, &options)?;
                assert_eq!((y.dims(), y.dtype()), (operand.dims(), dtype), "{}, batch {batch}, {sizes:?}", runner.name);
                assert!(numbers(&y)?.iter().all(|number| *number == 0.0), "{}, nothing to see", runner.name);
            }
        }
    }
    Ok(())
}

/// Scores of −∞ have no weight, wherever they stand among others; a key without weight adds nothing. Scores come to −∞ because
/// they overflow, or because a key is infinite, which f32 on CUDA makes NaN of.
#[test]
fn keys_without_weight_add_nothing() -> Result<()> {
    // More keys than any kernel takes at a time, so that tiles without a finite score come first, last and in between.
    let count = 700;
    let plan = plan(&[("q", 1), ("k", count)], &["q k -> k"]);
    let head_dim = 8;
    let row = |number: f32| vec![number; head_dim];
    // A power of two, which loses nothing where operands are split.
    let query = 2f32.powi(17);
    for runner in runners() {
        for visible in [0, 350, count - 1] {
            for score in [f32::NEG_INFINITY, -2f32.powi(126), -1e30 / query] {
                if score.is_infinite() && runner.device.is_cuda() && runner.backend != Backend::Reference {
                    continue;
                }
                let value = |key: usize| if key == visible { 1.0 } else { 1e30 };
                let keys: Vec<f32> =
                    (0..count).flat_map(|key| row(if key == visible { 1.0 / query } else { score })).collect();
                let values: Vec<f32> = (0..count).flat_map(|key| row(value(key))).collect();
                let tensor = |numbers: Vec<f32>| {
                    let numbers = [row(1.0), numbers].concat();
                    Tensor::from_vec(numbers, (1, 1, count + 1, head_dim), &runner.device)
                };
                let (keys, values) = (tensor(keys)?, tensor(values)?);
                let queries = (keys.ones_like()? * f64::from(query))?;
                let y = mixed_attention(&queries, &keys, &values, &plan, &runner.options())?;
                let first = numbers(&y.narrow(2, 0, 1)?)?;
                assert!(first.iter().all(|y| *y == 1.0), "{}, key {visible}, {score}: {first:?}", runner.name);
            }
        }
    }
    Ok(())
}

#[test]
fn masked_tokens_have_no_influence() -> Result<()> {
    let layer = layer(false)?;
    let options = AttentionOptions::default().key_padding(mask(&[&[1, 0, 1, 1, 1, 1, 1]])?);
    let x = random(&[1, 7, WIDTH])?;
    let y = layer.forward(&x, &small_plan(), &options)?;
    for poison in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e30] {
        let token = Tensor::full(poison, (1, 1, WIDTH), &Device::Cpu)?;
        let poisoned = Tensor::cat(&[&x.narrow(1, 0, 1)?, &token, &x.narrow(1, 2, 5)?], 1)?;
        let got = layer.forward(&poisoned, &small_plan(), &options)?;
        // The masked token is still a query, of its own content.
        for (start, len) in [(0, 1), (2, 5)] {
            same(&format!("{poison} in a masked token"), &got.narrow(1, start, len)?, &y.narrow(1, start, len)?);
        }
    }
    Ok(())
}
