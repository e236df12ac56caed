//! Two devices in one process, which share nothing.

use std::sync::Barrier;
use std::thread;

use anyhow::{Result, anyhow, bail, ensure};
use candle_core::{DType, Device, Tensor};
use candle_mixed_attention::{AttentionPart, Backend, KeyExchange, KvCache, LocalExchange};

use crate::bench::{Bench, Test};
use crate::compare::check_close;
use crate::control::{AMPERE, HOPPER};
use crate::problem::{Features, PLAIN, Problem, SPLIT, numbers};

pub const TESTS: [(&str, Test); 5] = [
    ("devices_share_a_plan_and_nothing_else", devices_share_a_plan_and_nothing_else),
    ("devices_work_at_the_same_time", devices_work_at_the_same_time),
    ("a_tensor_of_another_device_is_refused", a_tensor_of_another_device_is_refused),
    ("a_cache_moves_to_another_device", a_cache_moves_to_another_device),
    ("threads_with_a_device_each_exchange_what_they_have_not_waited_for", parts_are_exchanged),
];

const BOTH: [usize; 2] = [AMPERE, HOPPER];

/// Calls of both devices in turns, the results of which are read last: the plan has a schedule on each, and each device
/// launches the kernel that is its own, from its own memory.
fn devices_share_a_plan_and_nothing_else(bench: &Bench) -> Result<()> {
    let kernels = ["mixed_attention_sm80_f16_64", "mixed_attention_sm90_f16_64"];
    let problem = Problem::new(SPLIT, 130)?;
    // Kernels are loaded, once for each device.
    for number in BOTH {
        problem.check(bench.device(number)?, DType::F16)?;
    }
    let plan = problem.fresh_plan()?;
    let call = |number| problem.on(bench.device(number)?, DType::F16, Backend::Fused);
    let calls = [call(AMPERE)?, call(HOPPER)?];
    let mut results = Vec::new();
    for round in 0..3 {
        for (number, call) in calls.iter().enumerate() {
            let call = call.with_plan(&plan);
            let (kernel, others) = (kernels[number], kernels[1 - number]);
            let launches = || Ok::<_, anyhow::Error>((bench.driver.launches(kernel)?, bench.driver.launches(others)?));
            let before = launches()?;
            let names = ["cuMemcpyHtoDAsync_v2", "cuMemcpyPeerAsync", "cuModuleLoadData"];
            let (result, counts) = bench.driver.counting(&names, || call.run())?;
            ensure!(launches()? == (before.0 + 1, before.1), "device {number} launches a kernel for another one");
            ensure!((counts[0].1 > 0) == (round == 0), "device {number}, call {round}: {counts:?}");
            ensure!(counts[1].1 == 0 && counts[2].1 == 0, "device {number}, call {round}: {counts:?}");
            results.push(result);
        }
    }
    // What a device keeps of the plan is its own and goes with it; the other's goes on.
    let buffers = || BOTH.map(|number| bench.driver.alive(number, "buffers")).into_iter().collect::<Result<Vec<_>>>();
    let before = buffers()?;
    drop(plan);
    let after = buffers()?;
    ensure!(before.iter().zip(&after).all(|(before, after)| before > after), "{before:?} buffers, then {after:?}");
    results.iter().rev().try_for_each(|result| problem.compare(result, DType::F16))
}

fn devices_work_at_the_same_time(bench: &Bench) -> Result<()> {
    let problem = Problem::new(SPLIT, 140)?;
    let devices = [bench.device(AMPERE)?, bench.device(HOPPER)?, bench.device(AMPERE)?, bench.device(HOPPER)?];
    let started = Barrier::new(devices.len());
    thread::scope(|scope| {
        let work = |device| -> Result<()> {
            started.wait();
            (0..2).try_for_each(|_| problem.check(device, DType::F16))
        };
        let threads: Vec<_> = devices.map(|device| scope.spawn(move || work(device))).into_iter().collect();
        threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| anyhow!("a thread panicked"))?)
    })
}

/// Every argument of a call, one at a time on the other device: the error names it and both devices, and nothing is launched.
fn a_tensor_of_another_device_is_refused(bench: &Bench) -> Result<()> {
    let features = Features { rope: true, cached: 50, general: true, ..PLAIN };
    let problem = Problem::new(features, 150)?;
    for (number, other) in [(AMPERE, HOPPER), (HOPPER, AMPERE)] {
        let (call, foreign) = (
            problem.on(bench.device(number)?, DType::F16, Backend::Fused)?,
            problem.on(bench.device(other)?, DType::F16, Backend::Fused)?,
        );
        let replaced = [
            ("keys", call.replacing(|call| call.operands[1] = foreign.operands[1].clone())),
            ("values", call.replacing(|call| call.operands[2] = foreign.operands[2].clone())),
            ("cache", call.replacing(|call| call.cache.clone_from(&foreign.cache))),
            ("RoPE frequencies", call.replacing(|call| call.options = call.options.clone().rope(&foreign.angles))),
            ("key_bias", call.replacing(|call| call.options = call.options.clone().key_bias(&foreign.bias))),
        ];
        for (argument, mixed) in replaced {
            let (outcome, counts) = bench.driver.counting(&["cuLaunchKernel"], || Ok(mixed.run()))?;
            let Err(error) = outcome else { bail!("{argument} of device {other} went through on device {number}") };
            let text = format!("{error:#}");
            let ids = [number, other].map(|number| format!("gpu_id: {number}"));
            let told = text.contains(argument) && ids.iter().all(|id| text.contains(id));
            ensure!(told, "{argument} of device {other} on device {number}: {text}");
            ensure!(counts[0].1 == 0, "{argument} of device {other} on device {number}: {counts:?}");
        }
        problem.compare(&call.run()?, DType::F16)?;
    }
    Ok(())
}

/// The cache that it was made from goes at once, and what the one device has to do is done before the other begins.
fn a_cache_moves_to_another_device(bench: &Bench) -> Result<()> {
    for (from, to) in [(AMPERE, HOPPER), (HOPPER, AMPERE)] {
        let (from, to) = (bench.device(from)?, bench.device(to)?);
        let sent = [numbers(&[1, 2, 30, 64], 160)?, numbers(&[1, 2, 30, 64], 161)?];
        // Computed where it is, so that nobody has waited for it.
        let [keys, values] =
            [&sent[0], &sent[1]].map(|tensor| -> Result<Tensor> { Ok((tensor.to_device(from)? * 2.)?) });
        let cache = KvCache::from_groups([("past", keys?, values?)], None)?;
        let moved = cache.to_device(to)?;
        drop(cache);
        let (keys, values) = moved.group("past")?;
        for (name, got, sent) in [("keys", keys, &sent[0]), ("values", values, &sent[1])] {
            ensure!(got.device().same_device(to), "{name} did not move");
            check_close(name, &got.to_device(&Device::Cpu)?, &(sent * 2.)?, 0.).map_err(anyhow::Error::msg)?;
        }
    }
    Ok(())
}

/// Each thread has a stream of its own on every device, and candle lets none of them wait for another.
fn parts_are_exchanged(bench: &Bench) -> Result<()> {
    let devices = [bench.device(AMPERE)?, bench.device(HOPPER)?, bench.device(AMPERE)?];
    let part = |rank: usize| -> Result<AttentionPart> {
        let output = numbers(&[1, 2, 9, 8], 170 + rank as u64)?;
        Ok(AttentionPart { output, log_sum_exp: numbers(&[1, 2, 9], 180 + rank as u64)? })
    };
    let want = AttentionPart::combine(&[part(0)?, part(1)?, part(2)?])?;
    let work = |exchange: LocalExchange, device: &Device| -> Result<AttentionPart> {
        let AttentionPart { output, log_sum_exp } = part(exchange.rank())?;
        // Computed by kernels that nobody has waited for.
        let half = |tensor: Tensor| -> Result<Tensor> { Ok((tensor.to_device(device)? * 2.)?) };
        let twice = AttentionPart { output: half(output)?, log_sum_exp: half(log_sum_exp)? };
        let own = AttentionPart { output: (twice.output / 2.)?, log_sum_exp: (twice.log_sum_exp / 2.)? };
        let whole = exchange.combine(own)?;
        let home = |tensor: Tensor| tensor.to_device(&Device::Cpu);
        Ok(AttentionPart { output: home(whole.output)?, log_sum_exp: home(whole.log_sum_exp)? })
    };
    let results: Vec<AttentionPart> = thread::scope(|scope| {
        let pairs = LocalExchange::connect(devices.len()).into_iter().zip(devices);
        let threads: Vec<_> = pairs.map(|(exchange, device)| scope.spawn(|| work(exchange, device))).collect();
        let joined = threads.into_iter().map(|thread| thread.join().map_err(|_| anyhow!("a thread panicked"))?);
        joined.collect::<Result<_>>()
    })?;
    for got in results {
        check_close("output", &got.output, &want.output, 1e-6).map_err(anyhow::Error::msg)?;
        check_close("log-sum-exp", &got.log_sum_exp, &want.log_sum_exp, 1e-6).map_err(anyhow::Error::msg)?;
    }
    Ok(())
}
