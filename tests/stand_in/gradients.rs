//! Gradients and layers: what candle's own ops compute around a launch.

use anyhow::{Context, Error, Result, ensure};
use candle_core::{DType, Device, Tensor, Var};
use candle_mixed_attention::{AttentionOptions, Backend, MixedAttention, MixedAttentionConfig};
use candle_nn::{VarBuilder, VarMap};

use crate::bench::{Bench, Test};
use crate::compare::check_close;
use crate::control::{AMPERE, HOPPER};
use crate::problem::{Features, PLAIN, Problem};

pub const TESTS: [(&str, Test); 2] = [
    ("gradients_are_those_of_the_cpu", gradients_are_those_of_the_cpu),
    ("a_layer_is_that_of_the_cpu", a_layer_is_that_of_the_cpu),
];

/// Gradients of queries, keys and values.
fn gradients(problem: &Problem, device: &Device, backend: Backend) -> Result<Vec<Tensor>> {
    let mut call = problem.on(device, DType::F32, backend)?;
    let variables: Vec<Var> = call.operands.iter().map(Var::from_tensor).collect::<candle_core::Result<_>>()?;
    for (operand, variable) in call.operands.iter_mut().zip(&variables) {
        *operand = variable.as_tensor().clone();
    }
    let output = call.run()?;
    let gradients = (&output * &output)?.sum_all()?.backward()?;
    let of = |variable: &Var| -> Result<Tensor> {
        Ok(gradients.get(variable).context("a gradient")?.contiguous()?.to_device(&Device::Cpu)?)
    };
    variables.iter().map(of).collect()
}

fn gradients_are_those_of_the_cpu(bench: &Bench) -> Result<()> {
    let device = bench.device(AMPERE)?;
    for features in [PLAIN, Features { cached: 50, rope: true, padding: true, ..PLAIN }] {
        let problem = Problem::new(features, 110)?;
        let want = gradients(&problem, &Device::Cpu, Backend::Reference)?;
        let attention = "mixed_attention_sm80_f32_64";
        let before = (bench.driver.launches(attention)?, bench.driver.launches("candle")?);
        let got = gradients(&problem, device, Backend::Fused)?;
        for (name, (got, want)) in ["queries", "keys", "values"].iter().zip(got.iter().zip(&want)) {
            check_close(name, got, want, 1e-4).map_err(Error::msg)?;
        }
        let candles = bench.driver.launches("candle")? - before.1;
        println!("{features:?}: {candles} launches of candle's kernels");
        ensure!(bench.driver.launches(attention)? == before.0 + 1, "the backward pass launches attention");
    }
    Ok(())
}

/// The layer with its projections, which cuBLAS computes on a GPU.
fn a_layer_is_that_of_the_cpu(bench: &Bench) -> Result<()> {
    for (number, dtype, tolerance) in [(AMPERE, DType::F32, 1e-4), (HOPPER, DType::F16, 1e-2)] {
        let device = bench.device(number)?;
        let problem = Problem::new(PLAIN, 120)?;
        let config = MixedAttentionConfig::new(128, 2);
        let map = VarMap::new();
        MixedAttention::new(&config, VarBuilder::from_varmap(&map, DType::F32, &Device::Cpu))?;
        let weights = |device: &Device, dtype: DType| -> Result<VarBuilder<'_>> {
            let variables = map.data().lock().map_err(|_| Error::msg("poisoned"))?;
            let place = |(name, variable): (&String, &Var)| {
                Ok((name.clone(), variable.as_tensor().to_dtype(dtype)?.to_device(device)?))
            };
            let tensors = variables.iter().map(place).collect::<Result<_>>()?;
            Ok(VarBuilder::from_tensors(tensors, dtype, device))
        };
        let x = Tensor::randn(0f32, 1., (1, problem.plan.len(), 128), &Device::Cpu)?;
        let run = |device: &Device, dtype: DType| -> Result<Tensor> {
            let layer = MixedAttention::new(&config, weights(device, dtype)?)?;
            let x = x.to_dtype(dtype)?.to_device(device)?;
            Ok(layer.forward(&x, &problem.plan, &AttentionOptions::default())?.to_device(&Device::Cpu)?)
        };
        let (products, candles) = (bench.driver.launches("product")?, bench.driver.launches("candle")?);
        let got = run(device, dtype)?;
        let (products, candles) =
            (bench.driver.launches("product")? - products, bench.driver.launches("candle")? - candles);
        println!("device {number}: {products} products of cuBLAS, {candles} launches of candle's kernels");
        check_close("layer", &got, &run(&Device::Cpu, DType::F32)?, tolerance).map_err(Error::msg)?;
    }
    Ok(())
}
