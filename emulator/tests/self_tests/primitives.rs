//! Every primitive computes what a plain matrix product or copy does, in several thread orders.

use anyhow::{Result, ensure};
use bytemuck::{NoUninit, Pod, Zeroable};
use half::{bf16, f16};
use libtest_mimic::Trial;

use super::Way;
use emulator::{Device, Launch, TensorMap};

const ORDERS: [u64; 3] = [0, 1, 5];

type Check = fn(&Device, &str, u64) -> Result<()>;

const BASIC: [(&str, Check); 8] = [
    ("multiply_f16", |device, name, order| multiply::<f16>(device, name, order, 16, false)),
    ("multiply_bf16", |device, name, order| multiply::<bf16>(device, name, order, 16, false)),
    ("multiply_tf32", multiply_tf32),
    ("multiply_loaded_rows", |device, name, order| multiply::<f16>(device, name, order, 16, false)),
    ("multiply_loaded_columns", |device, name, order| multiply::<f16>(device, name, order, 16, true)),
    ("transpose_four", transpose_four),
    ("copy_partially", copy_partially),
    ("convert", convert),
];

const HOPPER: [(&str, Check); 13] = [
    ("load_swizzled_128", |device, name, order| load_box(device, name, order, [64, 5, 2, 2], 128)),
    ("load_swizzled_64", |device, name, order| load_box(device, name, order, [32, 3, 2, 2], 64)),
    ("load_unswizzled", |device, name, order| load_box(device, name, order, [8, 2, 3, 4], 0)),
    ("ss_f16_64_k", |device, name, order| warpgroup_multiply::<f16>(device, name, order, 64, false)),
    ("ss_bf16_96_k", |device, name, order| warpgroup_multiply::<bf16>(device, name, order, 96, false)),
    ("ss_f16_176_k", |device, name, order| warpgroup_multiply::<f16>(device, name, order, 176, false)),
    ("ss_f16_256_k", |device, name, order| warpgroup_multiply::<f16>(device, name, order, 256, false)),
    ("rs_f16_128_k", |device, name, order| warpgroup_multiply::<f16>(device, name, order, 128, false)),
    ("ss_f16_128_mn", |device, name, order| warpgroup_multiply::<f16>(device, name, order, 128, true)),
    ("rs_f16_64_mn", |device, name, order| warpgroup_multiply::<f16>(device, name, order, 64, true)),
    ("rs_bf16_96_mn", |device, name, order| warpgroup_multiply::<bf16>(device, name, order, 96, true)),
    ("rs_f16_192_mn", |device, name, order| warpgroup_multiply::<f16>(device, name, order, 192, true)),
    ("rs_f16_256_mn", |device, name, order| warpgroup_multiply::<f16>(device, name, order, 256, true)),
];

/// Small integers, exact in every type, so that products can be compared exactly.
trait Element: Pod {
    fn small(value: i32) -> Self;
}
impl Element for f16 {
    fn small(value: i32) -> Self {
        f16::from_f32(value as f32)
    }
}
impl Element for bf16 {
    fn small(value: i32) -> Self {
        bf16::from_f32(value as f32)
    }
}
impl Element for f32 {
    fn small(value: i32) -> Self {
        value as f32
    }
}

/// A matrix without pattern, of numbers from -8 to 8.
fn matrix(rows: usize, columns: usize, seed: usize) -> Vec<i32> {
    (0..rows * columns).map(|i| ((i + seed) * (i + 7) % 1009 * 31 % 17) as i32 - 8).collect()
}

fn elements<T: Element>(values: &[i32]) -> Vec<T> {
    values.iter().map(|&value| T::small(value)).collect()
}

/// A `[m, depth]` times B, `[n, depth]` or, where `b_rows` are along the depth, `[depth, n]`.
fn product(a: &[i32], b: &[i32], [m, n, depth]: [usize; 3], b_rows: bool) -> Vec<f32> {
    let b_at = |column: usize, k: usize| if b_rows { b[k * n + column] } else { b[column * depth + k] };
    let entry = |i: usize| (0..depth).map(|k| a[i / n * depth + k] * b_at(i % n, k)).sum::<i32>() as f32;
    (0..m * n).map(entry).collect()
}

fn ensure_equal(got: &[f32], expected: &[f32]) -> Result<()> {
    ensure!(got.len() == expected.len());
    let wrong = got.iter().zip(expected).position(|(got, expected)| got.to_bits() != (expected + 0.0).to_bits());
    match wrong {
        Some(i) => anyhow::bail!("element {i} is {} instead of {}", got[i], expected[i]),
        None => Ok(()),
    }
}

#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct MatrixArguments {
    a: u64,
    b: u64,
    d: u64,
}

/// One warp, arguments `a`, `b` and an output of `len` numbers.
fn run_warp<T: Pod>(device: &Device, name: &str, order: u64, [a, b]: [&[T]; 2], len: usize) -> Result<Vec<f32>> {
    let (a, b, d) = (device.input("a", a), device.input("b", b), device.output::<f32>("d", len));
    let arguments = MatrixArguments { a: a.address(), b: b.address(), d: d.address() };
    device.launch(name, Launch { grid: [1; 3], block: [32, 1, 1], shared_bytes: 1024, order }, &arguments)?;
    Ok(d.read())
}

fn multiply<T: Element>(device: &Device, name: &str, order: u64, depth: usize, b_rows: bool) -> Result<()> {
    let (a, b) = (matrix(16, depth, 1), matrix(8, depth, 2));
    let got = run_warp(device, name, order, [&elements::<T>(&a), &elements::<T>(&b)], 16 * 8)?;
    ensure_equal(&got, &product(&a, &b, [16, 8, depth], b_rows))
}

/// Exact where everything fits; else the sum of a block is cut off, not rounded.
fn multiply_tf32(device: &Device, name: &str, order: u64) -> Result<()> {
    multiply::<f32>(device, name, order, 8, false)?;
    let unit = f32::EPSILON;
    let (a, b) = ([1.0f32; 16 * 8], [[1.0, 1.5 * unit, 0.0, 0.0, 1.75 * unit, 0.0, 0.0, 0.0]; 8]);
    let got = run_warp(device, name, order, [&a, b.as_flattened()], 16 * 8)?;
    ensure_equal(&got, &[1.0 + 2.0 * unit; 16 * 8])
}

fn transpose_four(device: &Device, name: &str, order: u64) -> Result<()> {
    let elements: Vec<u16> = (0..256).collect();
    let got = run_warp(device, name, order, [&elements, &elements], 256)?;
    let expected = |i: usize| {
        let (lane, matrix, half) = (i / 8, i % 8 / 2, i % 2);
        (matrix * 64 + (lane % 4 * 2 + half) * 8 + lane / 4) as f32
    };
    ensure_equal(&got, &(0..256).map(expected).collect::<Vec<_>>())
}

fn copy_partially(device: &Device, name: &str, order: u64) -> Result<()> {
    let elements: Vec<f32> = (1..=128).map(|i| i as f32).collect();
    let got = run_warp(device, name, order, [&elements, &elements], 128)?;
    let expected = |i: usize| if i % 4 < i / 4 % 5 { elements[i] } else { 0.0 };
    ensure_equal(&got, &(0..128).map(expected).collect::<Vec<_>>())
}

fn convert(device: &Device, name: &str, order: u64) -> Result<()> {
    let inputs: Vec<f32> = (0..32).map(|i| (i as f32 - 16.0) * 1.2345).collect();
    let got = run_warp(device, name, order, [&inputs, &inputs], 256)?;
    let positive = inputs.iter().filter(|&&x| x > 0.0).count() as f32;
    let expected: Vec<f32> = inputs
        .iter()
        .enumerate()
        .flat_map(|(lane, &x)| {
            let tf32 = f32::from_bits((x.to_bits() + 0x1000) & 0xffff_e000);
            let (f16, bf16) = (f16::from_f32(x).to_bits().into(), bf16::from_f32(x).to_bits().into());
            [f16, bf16, tf32, got[lane * 8 + 3], inputs[lane ^ 5], inputs[3], positive, 3.0]
        })
        .collect();
    ensure_equal(&got, &expected)?;
    for (lane, x) in inputs.iter().enumerate() {
        let (got, expected) = (got[lane * 8 + 3], x.exp2());
        ensure!((got - expected).abs() <= 1e-6 * expected, "2^{x} is {got}");
    }
    Ok(())
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct TileArguments {
    a: TensorMap,
    b: TensorMap,
    d: u64,
    coordinates: [i32; 4],
    a_bytes: u32,
    b_bytes: u32,
    padding: [u32; 24],
}

/// A box that sticks out of the tensor on every side: at the front by one element, at the end by another.
fn load_box(device: &Device, name: &str, order: u64, boxed: [u32; 4], swizzle: u32) -> Result<()> {
    let element_count = |extent: &[u64]| extent.iter().product::<u64>() as usize;
    let rows_fit = |i: usize, extent: u32| if i == 0 { u64::from(extent) } else { u64::from(extent).max(2) - 1 };
    let sizes: Vec<u64> = boxed.iter().enumerate().map(|(i, &extent)| rows_fit(i, extent)).collect();
    let strides: Vec<u64> = (1..sizes.len()).map(|i| 2 * element_count(&sizes[..i]) as u64).collect();
    let tensor: Vec<u16> = (1..=element_count(&sizes) as u16).collect();
    let a = device.input("a", &tensor);
    let box_bytes = 2 * boxed.iter().product::<u32>();
    let d = device.output::<f32>("d", box_bytes as usize / 2);
    let coordinates = [-1, 1, 0, -1];
    let map = TensorMap::new(&a, &sizes, &strides, &boxed, swizzle);
    let arguments = TileArguments { a: map, d: d.address(), coordinates, a_bytes: box_bytes, ..Zeroable::zeroed() };
    let shared_bytes = box_bytes as usize + 8;
    device.launch(name, Launch { grid: [1; 3], block: [64, 1, 1], shared_bytes, order }, &arguments)?;

    let mut expected = vec![0.0; box_bytes as usize / 2];
    for place in 0..expected.len() {
        let (mut rest, mut source, mut stride, mut inside) = (place as i64, 0, 1, true);
        for i in 0..boxed.len() {
            let at = rest % i64::from(boxed[i]) + i64::from(coordinates[i]);
            rest /= i64::from(boxed[i]);
            inside &= at >= 0 && at < sizes[i] as i64;
            source += at * stride;
            stride *= sizes[i] as i64;
        }
        let chunk_row = place * 2 / 128;
        let chunks = (swizzle as usize / 16).max(1);
        let swizzled = place ^ ((chunk_row % chunks) * 8);
        expected[swizzled] = if inside { tensor[source as usize].into() } else { 0.0 };
    }
    ensure_equal(&d.read(), &expected)
}

fn warpgroup_multiply<T: Element>(device: &Device, name: &str, order: u64, n: usize, b_rows: bool) -> Result<()> {
    const SIDE: usize = 64;
    let (a, b) = (matrix(SIDE, SIDE, 3), matrix(n, SIDE, 4));
    let a_buffer = device.input("a", &elements::<T>(&a));
    let b_buffer = device.input("b", &elements::<T>(&b));
    let d = device.output::<f32>("d", SIDE * n);
    let (side, columns) = (SIDE as u64, n as u64);
    let a_whole = side * side * 2;
    let a_map = TensorMap::new(&a_buffer, &[side, side, 1, 1], &[side * 2, a_whole, a_whole], &[64, 64, 1, 1], 128);
    let (b_size, b_box, b_rows_in_shared) = match b_rows {
        false => ([side, columns, 1, 1], [64, n as u32, 1, 1], n),
        true => ([columns, side, 1, 1], [64, 64, 1, 1], n.next_multiple_of(64)),
    };
    let b_whole = columns * side * 2;
    let b_map = TensorMap::new(&b_buffer, &b_size, &[b_size[0] * 2, b_whole, b_whole], &b_box, 128);
    let (a_bytes, b_bytes) = ((SIDE * SIDE * 2) as u32, (b_rows_in_shared * SIDE * 2) as u32);
    let arguments = TileArguments { a: a_map, b: b_map, d: d.address(), a_bytes, b_bytes, ..Zeroable::zeroed() };
    let shared_bytes = (a_bytes + b_bytes + 8) as usize;
    device.launch(name, Launch { grid: [1; 3], block: [128, 1, 1], shared_bytes, order }, &arguments)?;
    ensure_equal(&d.read(), &product(&a, &b, [SIDE, n, SIDE], b_rows))
}

pub fn trials(way: &Way) -> Vec<Trial> {
    let mut trials = Vec::new();
    trials.extend(file_trials(way, "primitives.cu", &BASIC));
    trials.extend(file_trials(way, "primitives_hopper.cu", &HOPPER));
    trials
}

fn file_trials(way: &Way, file: &'static str, table: &'static [(&str, Check)]) -> Vec<Trial> {
    let kernels = way.kernels(file, table.iter().map(|(name, _)| *name).collect());
    let trial = |&(name, check): &'static (&'static str, Check)| {
        way.trial("primitive", name, kernels, move |kernels| {
            ORDERS.iter().try_for_each(|&order| check(&kernels.device(), name, order))
        })
    };
    table.iter().map(trial).collect()
}
