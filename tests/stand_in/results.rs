//! Results of calls from end to end.

use anyhow::{Result, ensure};
use candle_core::{DType, Device, Tensor};

use crate::bench::{Bench, Test};
use crate::control::{AMPERE, HOPPER};
use crate::problem::{Features, PLAIN, Problem, SPLIT};

pub const TESTS: [(&str, Test); 4] = [
    ("numbers_come_back_from_a_device", numbers_come_back_from_a_device),
    ("every_feature_on_an_ampere", every_feature_on_an_ampere),
    ("every_feature_on_a_hopper", every_feature_on_a_hopper),
    ("sums_of_many_keys_are_carried", sums_of_many_keys_are_carried),
];

fn numbers_come_back_from_a_device(bench: &Bench) -> Result<()> {
    for number in [AMPERE, HOPPER] {
        let device = bench.device(number)?;
        let sent: Vec<f32> = (0..1000).map(|number| number as f32).collect();
        let back = Tensor::new(sent.as_slice(), device)?.to_device(&Device::Cpu)?;
        ensure!(back.to_vec1::<f32>()? == sent, "other numbers came back");
    }
    Ok(())
}

/// Calls that between them have everything.
const CALLS: [Features; 4] = [
    PLAIN,
    Features { rope: true, padding: true, batch: 2, ..PLAIN },
    SPLIT,
    Features { cached: 50, padding: true, general: true, ..PLAIN },
];

fn every_feature(device: &Device, dtypes: &[DType]) -> Result<()> {
    for (seed, features) in (1..).zip(CALLS) {
        for &dtype in dtypes {
            Problem::new(features, seed)?.check(device, dtype)?;
        }
    }
    Ok(())
}

fn every_feature_on_an_ampere(bench: &Bench) -> Result<()> {
    every_feature(bench.device(AMPERE)?, &[DType::F16, DType::F32])?;
    Problem::new(Features { head_dim: 40, ..CALLS[2] }, 9)?.check(bench.device(AMPERE)?, DType::BF16)
}

fn every_feature_on_a_hopper(bench: &Bench) -> Result<()> {
    let kernel = "mixed_attention_sm90_f16_64";
    let before = bench.driver.launches(kernel)?;
    every_feature(bench.device(HOPPER)?, &[DType::F16])?;
    ensure!(bench.driver.launches(kernel)? > before, "{kernel} never ran");
    Ok(())
}

/// More keys than a sum has before it is carried.
fn sums_of_many_keys_are_carried(bench: &Bench) -> Result<()> {
    let call = Features { cached: 2_200, ..PLAIN };
    Problem::new(call, 5)?.check(bench.device(AMPERE)?, DType::F32)?;
    Problem::new(call, 6)?.check(bench.device(HOPPER)?, DType::F16)
}
