//! Rounding errors beside those of PyTorch's attention, for machines that have it.

use std::collections::HashMap;
use std::process::Command;

use anyhow::{Result, ensure};
use candle_core::{DType, Device, safetensors};
use candle_mixed_attention::SimdLevel;

use super::fused::{ours, rounding, tensor};
use super::long_sums::{CASES, Data, rms};
use super::support::compare::numbers;

/// Queries, keys and head_dim.
const SIZES: [(usize, usize, usize); 4] = [(256, 1 << 10, 64), (64, 1 << 14, 64), (16, 1 << 17, 64), (4, 1 << 20, 32)];

/// Errors that differ by less than this are the same: where one or two keys decide, both sides round alike, and which way the
/// last bits fall is chance.
const SAME: f64 = 0.015;

/// Prints the table of BENCHMARKS.md. `PYTHON` names an interpreter that has PyTorch and safetensors, `python3` by default.
#[test]
#[ignore = "needs PyTorch"]
fn errors_beside_pytorch() -> Result<()> {
    let python = std::env::var("PYTHON").unwrap_or_else(|_| "python3".to_string());
    let folder = tempfile::tempdir()?;
    for dtype in [DType::F32, DType::BF16] {
        for sizes in SIZES {
            for (case, scores, one_sign) in CASES {
                let data = Data::new(sizes, scores, one_sign, rounding(dtype));
                let want = data.exact();
                let file = folder.path().join("data.safetensors");
                let rows = [("queries", &data.queries), ("keys", &data.keys), ("values", &data.values)];
                let tensors = rows.map(|(name, rows)| Ok((name, tensor(&data, rows, dtype)?)));
                safetensors::save(&tensors.into_iter().collect::<Result<HashMap<_, _>>>()?, &file)?;
                let script = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/peers/torch_accuracy.py");
                ensure!(Command::new(&python).arg(script).arg(&file).status()?.success(), "{script} failed");
                let result = &safetensors::load(&file, &Device::Cpu)?["result"];
                let theirs = rms(&numbers(result)?, &want);
                for level in SimdLevel::available() {
                    let ratio = rms(&ours(&data, dtype, *level)?, &want) / theirs;
                    let keys = sizes.1;
                    println!("| {dtype:?} | {keys} | {case} | {level} | {theirs:.2e} | {ratio:.2} |");
                    // Plain code rounds multiply-adds twice, which counts where few keys decide: there, what was measured.
                    let bound = if *level == SimdLevel::Scalar && scores > 1.0 { 1.15 } else { 1.0 + SAME };
                    ensure!(ratio <= bound, "{dtype:?}, {keys} keys, {case}, {level}: {ratio:.3} of PyTorch's error");
                }
            }
        }
    }
    Ok(())
}
