//! The kernels without matrices, tried on whatever GPU there is: the virtual ones of hosted machines run no others.
//!
//! Ignored, because such a GPU promises nothing: `cargo test --features metal --lib small_kernels -- --ignored`.

use std::sync::Arc;

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, DType, Device, MetalDevice, MetalStorage, Result, Tensor};
use candle_metal_kernels::metal::Buffer;

use super::launch::Loaded;
use crate::kernels::call::CallShape;
use crate::kernels::metal::launch::{Call, Results};
use crate::kernels::metal::tiling::{Element, Family, Tiling};
use crate::kernels::rows::{AngleRows, TensorRows};
use crate::kernels::schedule::ScheduleSizes;
use crate::ops::{cos, sin};
use crate::plan::{KeySpan, SlotReduction};

const BATCH: usize = 2;
const HEADS: usize = 3;
const TOKENS: usize = 11;
const HEAD_DIM: usize = 64;

fn gpu() -> Result<MetalDevice> {
    match Device::new_metal(0)? {
        Device::Metal(device) => Ok(device),
        other => candle_core::bail!("expected a Metal device, got {:?}", other.location()),
    }
}

fn call() -> Call {
    let shape = CallShape {
        batch: BATCH,
        heads: HEADS,
        kv_heads: HEADS,
        tokens: TOKENS,
        cache_tokens: 0,
        input_keys: true,
        head_dim: HEAD_DIM,
        scale: 0.125,
    };
    let tiling = Tiling::of(Family::Apple7, Element::F32, HEAD_DIM).expect("a tile");
    Call { shape, element: Element::F32, tiling }
}

/// Numbers that differ from each other, between -1 and 1.
fn numbers(count: usize) -> Vec<f32> {
    (0..count).map(|i| ((i as f32 * 0.618).fract() - 0.5) * 2.0).collect()
}

fn read(device: &MetalDevice, buffer: Arc<Buffer>, count: usize) -> Result<Vec<f32>> {
    match MetalStorage::new(buffer, device.clone(), count, DType::F32).to_cpu_storage()? {
        CpuStorage::F32(numbers) => Ok(numbers),
        other => candle_core::bail!("expected f32, got {:?}", other.dtype()),
    }
}

fn assert_near(got: &[f32], expected: &[f64], tolerance: f64) {
    assert_eq!(got.len(), expected.len());
    for (at, (&got, &expected)) in got.iter().zip(expected).enumerate() {
        assert!((f64::from(got) - expected).abs() <= tolerance, "{at}: expected {expected}, got {got}");
    }
}

#[test]
#[ignore = "needs a GPU of Apple's"]
fn sines_and_cosines() -> Result<()> {
    let angles: Vec<f32> = numbers(1000).iter().map(|x| x * 5000.0).collect();
    let on_gpu = Tensor::new(angles.as_slice(), &Device::new_metal(0)?)?;
    let expected = |of: fn(f64) -> f64| angles.iter().map(|&angle| of(f64::from(angle))).collect::<Vec<_>>();
    assert_near(&sin(&on_gpu)?.to_vec1()?, &expected(f64::sin), 5e-7);
    assert_near(&cos(&on_gpu)?.to_vec1()?, &expected(f64::cos), 5e-7);
    Ok(())
}

#[test]
#[ignore = "needs a GPU of Apple's"]
fn keys_are_rotated() -> Result<()> {
    let device = gpu()?;
    let spans = [KeySpan { first_token: 0, first_row: 0, len: 4 }, KeySpan { first_token: 6, first_row: 4, len: 5 }];
    let tokens: Vec<usize> = (0..4).chain(6..TOKENS).collect();
    let sizes = sizes(0, 0, spans.len(), tokens.len());
    let keys = numbers(BATCH * HEADS * TOKENS * HEAD_DIM);
    let angles = numbers(TOKENS * HEAD_DIM / 2);
    let pairs: Vec<f32> = angles.iter().flat_map(|angle| [angle.cos(), angle.sin()]).collect();

    let call = call();
    let (key_buffer, pair_buffer) = (device.new_buffer_with_data(&keys)?, device.new_buffer_with_data(&pairs)?);
    let span_buffer = device.new_buffer_with_data(&spans)?;
    let count = call.scratch(&sizes).rotated;
    let rotated = device.new_buffer_with_data(&vec![f32::NAN; count])?;
    // Keys as the projection leaves them, `[batch, tokens, heads, head_dim]`.
    let key_rows = TensorRows::dense(TOKENS, HEADS, HEAD_DIM);
    let angle_rows = AngleRows { offset: 0, batch: 0, token: HEAD_DIM as i64 };
    let launch = call.rotate(
        &sizes,
        (&*key_buffer, key_rows),
        (&*pair_buffer, angle_rows),
        &*span_buffer,
        call.rotated_keys(&sizes, &*rotated),
    );
    let launch = Loaded::new(&device, launch)?;
    launch.encode(device.command_encoder()?.as_ref());

    let mut expected = Vec::with_capacity(count);
    for batch in 0..BATCH {
        for &token in &tokens {
            for head in 0..HEADS {
                let row = &keys[((batch * TOKENS + token) * HEADS + head) * HEAD_DIM..][..HEAD_DIM];
                for (pair, angle) in row.chunks(2).zip(&angles[token * HEAD_DIM / 2..]) {
                    let ((sin, cos), x, y) = (f64::from(*angle).sin_cos(), f64::from(pair[0]), f64::from(pair[1]));
                    expected.extend([x * cos - y * sin, x * sin + y * cos]);
                }
            }
        }
    }
    assert_near(&read(&device, rotated, count)?, &expected, 1e-6);
    Ok(())
}

#[test]
#[ignore = "needs a GPU of Apple's"]
fn parts_of_split_tiles_are_combined() -> Result<()> {
    let device = gpu()?;
    let call = call();
    let (queries, slot) = (call.tile().queries, call.tile().slot_floats(HEAD_DIM));
    let tile = SlotReduction { query_start: 3, query_len: 5, batch: 1, head: 2, first_slot: 1, slots: 3, counter: 0 };
    // Slots of others, rows behind the tile's and maxima without a key are NaN, which must not be read.
    let mut partials = vec![f32::NAN; 5 * slot];
    let mut expected = vec![f64::NAN; BATCH * TOKENS * HEADS * HEAD_DIM];
    for row in 0..tile.query_len as usize {
        let mut parts = Vec::new();
        for part in 0..tile.slots as usize {
            let slot = &mut partials[(tile.first_slot as usize + part) * slot..][..slot];
            // The last row has no key at all, the first one only in its second part.
            let sum = if row == 4 || (row == 0 && part != 1) { 0.0 } else { 1.5 + part as f32 };
            let channels = numbers((row + part + 1) * HEAD_DIM).split_off((row + part) * HEAD_DIM);
            slot[row * HEAD_DIM..][..HEAD_DIM].copy_from_slice(&channels);
            slot[queries * HEAD_DIM + 2 * row + 1] = sum;
            if sum > 0.0 {
                let maximum = (row as f32 - part as f32) * 2.5;
                slot[queries * HEAD_DIM + 2 * row] = maximum;
                parts.push((f64::from(maximum).exp2(), f64::from(sum), channels));
            }
        }
        let total: f64 = parts.iter().map(|(weight, sum, _)| weight * sum).sum();
        let start = ((TOKENS + tile.query_start as usize + row) * HEADS + tile.head as usize) * HEAD_DIM;
        for (channel, expected) in expected[start..][..HEAD_DIM].iter_mut().enumerate() {
            let mixed: f64 = parts.iter().map(|(weight, _, channels)| weight * f64::from(channels[channel])).sum();
            *expected = if total == 0.0 { 0.0 } else { mixed / total };
        }
    }

    let (partials, tiles) = (device.new_buffer_with_data(&partials)?, device.new_buffer_with_data(&[tile])?);
    let output = device.new_buffer_with_data(&vec![f32::NAN; expected.len()])?;
    let results = Results { output: &*output, log_sum_exp: None };
    let launch = Loaded::new(&device, call.combine(&sizes(5, 1, 0, 0), &*partials, &*tiles, results))?;
    launch.encode(device.command_encoder()?.as_ref());

    let got = read(&device, output, expected.len())?;
    let (written, untouched): (Vec<_>, Vec<_>) =
        got.iter().zip(&expected).partition(|(_, expected)| !expected.is_nan());
    assert!(untouched.iter().all(|(got, _)| got.is_nan()), "rows of other tiles are written");
    let (got, expected): (Vec<f32>, Vec<f64>) = written.into_iter().unzip();
    assert_near(&got, &expected, 1e-5);
    Ok(())
}

fn sizes(partial_slots: usize, split_tiles: usize, key_spans: usize, rotated_rows: usize) -> ScheduleSizes {
    ScheduleSizes {
        items: 0,
        blocks: 0,
        partial_slots,
        split_tiles,
        key_spans,
        rotated_rows,
        has_partial_steps: false,
        has_windows: false,
        most_steps: 0,
    }
}
