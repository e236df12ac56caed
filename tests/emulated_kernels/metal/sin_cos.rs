//! Sines and cosines.

use anyhow::{Result, ensure};
use libtest_mimic::Trial;

use super::compile;
use crate::emulated_kernels::numbers::worst_error;
use candle_mixed_attention::kernels::metal::recipes;
use emulator::{Compiler, Kernels, Launch, MetalArguments, compiled, trial};

const THREADS: usize = 64;

pub fn trials(compiler: &Result<Compiler, String>) -> Vec<Trial> {
    let kernels = compile(compiler, recipes::sin_cos());
    vec![trial("metal_sin_cos", compiler, move || check(compiled(kernels)?))]
}

/// Right at every angle, and nothing is written past the end of the last threadgroup.
fn check(kernels: &Kernels) -> Result<()> {
    let angles: Vec<f32> = (0..1000).map(|i| (i as f32 - 500.0) * 7.3).collect();
    for is_cosine in [false, true] {
        let device = kernels.device();
        let (input, output) = (device.input("angles", &angles), device.output::<f32>("values", angles.len()));
        let count = device.input("arguments", &[angles.len() as u64]);
        let mut arguments = MetalArguments::new();
        arguments.buffers[..3].copy_from_slice(&[input.address(), output.address(), count.address()]);
        arguments.constants[0] = is_cosine.into();
        let grid = [angles.len().div_ceil(THREADS) as u32, 1, 1];
        let launch = Launch { grid, block: [THREADS as u32, 1, 1], shared_bytes: 0, order: 5 };
        device.launch("sin_cos", launch, &arguments)?;
        let expected = |&angle: &f32| if is_cosine { f64::from(angle).cos() } else { f64::from(angle).sin() };
        let expected: Vec<f64> = angles.iter().map(expected).collect();
        let got: Vec<f64> = output.read().into_iter().map(f64::from).collect();
        let error = worst_error(&got, &expected);
        ensure!(error < 1e-7, "off by {error:e}");
    }
    Ok(())
}
