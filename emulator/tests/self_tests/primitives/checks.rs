//! Every primitive computes what a plain matrix product or copy does, in the emulator and on a GPU.

use anyhow::{Result, ensure};
use bytemuck::{NoUninit, Pod, Zeroable};
use half::{bf16, f16};

/// What kernels run on.
pub trait Machine {
    /// The address of memory with these bytes.
    fn input(&self, bytes: &[u8]) -> Result<u64>;

    /// The address of memory for so many numbers, which nobody has written.
    fn output(&self, numbers: usize) -> Result<u64>;

    /// What is in such memory, once all launches have ended.
    fn read(&self, address: u64, numbers: usize) -> Result<Vec<f32>>;

    /// A map of a tensor of 16-bit elements: sizes innermost first, strides in bytes from dimension 1 on, a swizzle of 0, 64 or
    /// 128 bytes.
    fn map(&self, address: u64, sizes: [u64; 4], strides: [u64; 3], boxed: [u32; 4], swizzle: u32) -> Result<Map>;

    /// Launches a kernel on one block of so many threads; `arguments` are the bytes of its parameter.
    fn launch(&self, kernel: &str, threads: u32, shared_bytes: usize, arguments: &[u8]) -> Result<()>;
}

/// A tensor map, as kernels take it.
#[repr(C, align(64))]
#[derive(Clone, Copy, Pod, Zeroable)]
pub struct Map(pub [u64; 16]);

/// Runs the kernel of this name and compares.
pub type Check = fn(&dyn Machine, &str) -> Result<()>;

/// Kernels of `primitives.cu`.
pub const BASIC: [(&str, Check); 9] = [
    ("multiply_f16", |machine, name| multiply::<f16>(machine, name, 16, false)),
    ("multiply_bf16", |machine, name| multiply::<bf16>(machine, name, 16, false)),
    ("multiply_tf32", |machine, name| multiply::<f32>(machine, name, 8, false)),
    ("cut_off_tf32", cut_off_tf32),
    ("multiply_loaded_rows", |machine, name| multiply::<f16>(machine, name, 16, false)),
    ("multiply_loaded_columns", |machine, name| multiply::<f16>(machine, name, 16, true)),
    ("transpose_four", transpose_four),
    ("copy_partially", copy_partially),
    ("convert", convert),
];

/// Kernels of `primitives_hopper.cu`.
pub const HOPPER: [(&str, Check); 13] = [
    ("load_swizzled_128", |machine, name| load_box(machine, name, [64, 5, 2, 2], 128)),
    ("load_swizzled_64", |machine, name| load_box(machine, name, [32, 3, 2, 2], 64)),
    ("load_unswizzled", |machine, name| load_box(machine, name, [8, 2, 3, 4], 0)),
    ("ss_f16_64_k", |machine, name| warpgroup_multiply::<f16>(machine, name, 64, false)),
    ("ss_bf16_96_k", |machine, name| warpgroup_multiply::<bf16>(machine, name, 96, false)),
    ("ss_f16_176_k", |machine, name| warpgroup_multiply::<f16>(machine, name, 176, false)),
    ("ss_f16_256_k", |machine, name| warpgroup_multiply::<f16>(machine, name, 256, false)),
    ("rs_f16_128_k", |machine, name| warpgroup_multiply::<f16>(machine, name, 128, false)),
    ("ss_f16_128_mn", |machine, name| warpgroup_multiply::<f16>(machine, name, 128, true)),
    ("rs_f16_64_mn", |machine, name| warpgroup_multiply::<f16>(machine, name, 64, true)),
    ("rs_bf16_96_mn", |machine, name| warpgroup_multiply::<bf16>(machine, name, 96, true)),
    ("rs_f16_192_mn", |machine, name| warpgroup_multiply::<f16>(machine, name, 192, true)),
    ("rs_f16_256_mn", |machine, name| warpgroup_multiply::<f16>(machine, name, 256, true)),
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
fn run_warp<T: Pod>(machine: &dyn Machine, name: &str, [a, b]: [&[T]; 2], len: usize) -> Result<Vec<f32>> {
    let [a, b] = [a, b].map(|matrix| machine.input(bytemuck::cast_slice(matrix)));
    let arguments = MatrixArguments { a: a?, b: b?, d: machine.output(len)? };
    machine.launch(name, 32, 1024, bytemuck::bytes_of(&arguments))?;
    machine.read(arguments.d, len)
}

fn multiply<T: Element>(machine: &dyn Machine, name: &str, depth: usize, b_rows: bool) -> Result<()> {
    let (a, b) = (matrix(16, depth, 1), matrix(8, depth, 2));
    let got = run_warp(machine, name, [&elements::<T>(&a), &elements::<T>(&b)], 16 * 8)?;
    ensure_equal(&got, &product(&a, &b, [16, 8, depth], b_rows))
}

/// What does not fit into the sum of a block is cut off, not rounded, as Ampere and later do.
fn cut_off_tf32(machine: &dyn Machine, name: &str) -> Result<()> {
    let unit = f32::EPSILON;
    let (a, b) = ([1.0f32; 16 * 8], [[1.0, 1.5 * unit, 0.0, 0.0, 1.75 * unit, 0.0, 0.0, 0.0]; 8]);
    let got = run_warp(machine, name, [&a, b.as_flattened()], 16 * 8)?;
    ensure_equal(&got, &[1.0 + 2.0 * unit; 16 * 8])
}

fn transpose_four(machine: &dyn Machine, name: &str) -> Result<()> {
    let elements: Vec<u16> = (0..256).collect();
    let got = run_warp(machine, name, [&elements, &elements], 256)?;
    let expected = |i: usize| {
        let (lane, matrix, half) = (i / 8, i % 8 / 2, i % 2);
        (matrix * 64 + (lane % 4 * 2 + half) * 8 + lane / 4) as f32
    };
    ensure_equal(&got, &(0..256).map(expected).collect::<Vec<_>>())
}

fn copy_partially(machine: &dyn Machine, name: &str) -> Result<()> {
    let elements: Vec<f32> = (1..=128).map(|i| i as f32).collect();
    let got = run_warp(machine, name, [&elements, &elements], 128)?;
    let expected = |i: usize| if i % 4 < i / 4 % 5 { elements[i] } else { 0.0 };
    ensure_equal(&got, &(0..128).map(expected).collect::<Vec<_>>())
}

fn convert(machine: &dyn Machine, name: &str) -> Result<()> {
    let inputs: Vec<f32> = (0..32).map(|i| (i as f32 - 16.0) * 1.2345).collect();
    let got = run_warp(machine, name, [&inputs, &inputs], 256)?;
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
    a: Map,
    b: Map,
    d: u64,
    coordinates: [i32; 4],
    a_bytes: u32,
    b_bytes: u32,
    padding: [u32; 24],
}

/// A box that sticks out of the tensor on every side: at the front by one element, at the end by another.
fn load_box(machine: &dyn Machine, name: &str, boxed: [u32; 4], swizzle: u32) -> Result<()> {
    let element_count = |extent: &[u64]| extent.iter().product::<u64>() as usize;
    let rows_fit = |i: usize, extent: u32| if i == 0 { u64::from(extent) } else { u64::from(extent).max(2) - 1 };
    let sizes: [u64; 4] = std::array::from_fn(|i| rows_fit(i, boxed[i]));
    let strides: [u64; 3] = std::array::from_fn(|i| 2 * element_count(&sizes[..=i]) as u64);
    let tensor: Vec<u16> = (1..=element_count(&sizes) as u16).collect();
    let box_bytes = 2 * boxed.iter().product::<u32>();
    let len = box_bytes as usize / 2;
    let coordinates = [-1, 1, 0, -1];
    let a = machine.map(machine.input(bytemuck::cast_slice(&tensor))?, sizes, strides, boxed, swizzle)?;
    let d = machine.output(len)?;
    let arguments = TileArguments { a, d, coordinates, a_bytes: box_bytes, ..Zeroable::zeroed() };
    machine.launch(name, 64, box_bytes as usize + 8, bytemuck::bytes_of(&arguments))?;

    let mut expected = vec![0.0; len];
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
    ensure_equal(&machine.read(d, len)?, &expected)
}

fn warpgroup_multiply<T: Element>(machine: &dyn Machine, name: &str, n: usize, b_rows: bool) -> Result<()> {
    const SIDE: usize = 64;
    let (a, b) = (matrix(SIDE, SIDE, 3), matrix(n, SIDE, 4));
    let a_address = machine.input(bytemuck::cast_slice(&elements::<T>(&a)))?;
    let b_address = machine.input(bytemuck::cast_slice(&elements::<T>(&b)))?;
    let d = machine.output(SIDE * n)?;
    let (side, columns) = (SIDE as u64, n as u64);
    let a_whole = side * side * 2;
    let a_map = machine.map(a_address, [side, side, 1, 1], [side * 2, a_whole, a_whole], [64, 64, 1, 1], 128)?;
    let (b_size, b_box, b_rows_in_shared) = match b_rows {
        false => ([side, columns, 1, 1], [64, n as u32, 1, 1], n),
        true => ([columns, side, 1, 1], [64, 64, 1, 1], n.next_multiple_of(64)),
    };
    let b_whole = columns * side * 2;
    let b_map = machine.map(b_address, b_size, [b_size[0] * 2, b_whole, b_whole], b_box, 128)?;
    let (a_bytes, b_bytes) = ((SIDE * SIDE * 2) as u32, (b_rows_in_shared * SIDE * 2) as u32);
    let arguments = TileArguments { a: a_map, b: b_map, d, a_bytes, b_bytes, ..Zeroable::zeroed() };
    machine.launch(name, 128, (a_bytes + b_bytes + 8) as usize, bytemuck::bytes_of(&arguments))?;
    ensure_equal(&machine.read(d, SIDE * n)?, &product(&a, &b, [SIDE, n, SIDE], b_rows))
}
