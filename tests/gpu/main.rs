//! What only a GPU can show: single instructions, small calls one feature after the other, repeats, threads, several devices,
//! sizes beyond 32 bits.
//!
//! Golden cases and properties run on a GPU in their own test binaries. Without a device the tests are ignored, with the
//! reason in their names; a test that needs more memory than the device has free says so and stops.

#[cfg(feature = "cuda")]
mod primitives;
#[path = "../support/problem.rs"]
mod problem;
mod small;
#[path = "../support/mod.rs"]
mod support;

use std::sync::Barrier;
use std::thread;

use anyhow::{Result, ensure};
use candle_core::{DType, Device, IndexOp, Tensor};
use candle_mixed_attention::plan::{CacheLayout, TileShape};
use candle_mixed_attention::{
    AttentionOptions, AttentionPattern, AttentionPlan, Backend, KeyPadding, KvCache, Rope, RopeConfig, TokenSpec,
    mixed_attention, mixed_attention_cached, mixed_attention_part, supports,
};
use libtest_mimic::{Arguments, Trial};
use support::backends::{DTYPES, Gpu, gpus};
use support::compare::{self, check_close, numbers};

type Test = fn(&Device) -> Result<()>;

const TESTS: [(&str, Test); 11] = [
    ("every_multiple_of_8_in_f32", |device| every_multiple_of_8(device, &[DType::F32], (8, 256))),
    ("every_multiple_of_8_beyond_128", |device| every_multiple_of_8(device, &[DType::F16, DType::BF16], (136, 256))),
    ("every_multiple_of_8_up_to_128", |device| every_multiple_of_8(device, &[DType::F16, DType::BF16], (8, 128))),
    ("repeats_have_the_same_bits", repeats_have_the_same_bits),
    ("threads_share_a_plan", threads_share_a_plan),
    ("heads_that_share_their_keys_are_read_in_place", heads_that_share_their_keys_are_read_in_place),
    ("rows_at_odd_addresses_are_read", rows_at_odd_addresses_are_read),
    ("split_keys_rope_padding_and_cache", split_keys_rope_padding_and_cache),
    ("windows_biases_and_log_sum_exps", windows_biases_and_log_sum_exps),
    ("a_million_queries_see_32k_keys", a_million_queries_see_32k_keys),
    ("queries_beyond_two_to_the_31_elements", queries_beyond_two_to_the_31_elements),
];

/// For NVIDIA GPUs only.
const CUDA_TESTS: [(&str, Test); 2] = [
    ("tf32_is_near_and_not_the_same", tf32_is_near_and_not_the_same),
    ("two_devices_share_a_plan", two_devices_share_a_plan),
];

fn main() {
    let arguments = Arguments::from_args();
    let trials_on = |gpu: &'static Gpu| {
        let trial = move |(name, test): (&str, Test)| match &gpu.device {
            Ok(device) => {
                let run = move || Ok(test(device).map_err(|error| format!("{error:#}"))?);
                Trial::test(format!("{}::{name}", gpu.name), run)
            }
            Err(reason) => {
                let title = format!("{}::{name} ({reason})", gpu.name);
                Trial::test(title, || Ok(())).with_ignored_flag(true)
            }
        };
        let own = if gpu.name == "cuda" { &CUDA_TESTS[..] } else { &[] };
        TESTS.iter().chain(&small::TESTS).chain(own).copied().map(trial)
    };
    let trials = gpus().iter().flat_map(trials_on);
    #[cfg(feature = "cuda")]
    let trials = trials.chain(primitives::trials());
    libtest_mimic::run(&arguments, trials.collect()).exit();
}

fn fused() -> AttentionOptions {
    AttentionOptions::default().backend(Backend::Fused)
}

/// Allowed errors of numbers of order 1 against f64.
fn tolerance(dtype: DType) -> f64 {
    match dtype {
        DType::F32 => 5e-6,
        DType::F16 => 5e-3,
        _ => 4e-2,
    }
}

fn random(shape: impl Into<candle_core::Shape>, dtype: DType, device: &Device) -> Result<Tensor> {
    Ok(Tensor::randn(0f32, 1., shape, device)?.to_dtype(dtype)?)
}

/// Queries, keys and values as views of one projection.
fn projection(tokens: usize, heads: usize, head_dim: usize, dtype: DType, device: &Device) -> Result<[Tensor; 3]> {
    let all = random((1, tokens, 3, heads, head_dim), dtype, device)?;
    let view = |part| all.narrow(2, part, 1)?.squeeze(2)?.transpose(1, 2);
    Ok([view(0)?, view(1)?, view(2)?])
}

/// Self attention of two domains, whose keys a GPU splits because there are few queries.
fn two_domains(anchors: usize, queries: usize) -> Result<AttentionPlan> {
    let tokens = [("a_anchors", anchors), ("a_queries", queries), ("b_anchors", anchors + 77), ("b_queries", queries)];
    let patterns = [
        AttentionPattern::queries(["a_anchors", "a_queries"]).attend_to(["a_anchors"]),
        AttentionPattern::queries(["b_anchors", "b_queries"]).attend_to(["b_anchors", "a_anchors"]),
    ];
    Ok(AttentionPlan::new(tokens.map(|(name, size)| TokenSpec::new(name, size)), patterns)?)
}

/// Steps in windows past a cache, whole and with keys that are split, with their log-sum-exps.
fn windows_biases_and_log_sum_exps(device: &Device) -> Result<()> {
    let (past, heads, kv_heads) = (5000, 4, 2);
    for (steps, left, right) in [(30, 4500, 0), (1000, 300, 20)] {
        let pattern = AttentionPattern::queries(["steps"]).attend_to(["past", "steps"]).window(left, right);
        let plan = AttentionPlan::new([TokenSpec::cached("past"), TokenSpec::new("steps", steps)], [pattern])?;
        for (dtype, head_dim) in DTYPES.into_iter().flat_map(|dtype| [(dtype, 64), (dtype, 128), (dtype, 200)]) {
            let [q, k, v] = projection(steps, heads, head_dim, dtype, device)?;
            let operands = [q, k.narrow(1, 0, kv_heads)?, v.narrow(1, 1, kv_heads)?];
            let cached = || random((1, kv_heads, past, head_dim), dtype, device);
            let (keys, values) = (cached()?, cached()?);
            let bias = random((1, heads, steps), DType::F32, device)?;
            let cache_bias = random((1, 1, past), DType::F32, device)?;
            let call = |[q, k, v]: &[Tensor; 3], keys: Tensor, values: Tensor, options: AttentionOptions| {
                let cache_bias = cache_bias.to_device(keys.device())?;
                let cache = KvCache::from_groups([("past", keys, values)], None)?.with_key_bias(&cache_bias)?;
                let options = options.key_bias(&bias.to_device(q.device())?);
                mixed_attention_part(q, Some((k, v)), Some(&cache), &plan, &options)
            };
            let [q, k, v] = &operands;
            let on_cpu = [wide(q)?, wide(k)?, wide(v)?];
            let want = call(&on_cpu, wide(&keys)?, wide(&values)?, fused().backend(Backend::Reference))?;
            let got = call(&operands, keys, values, fused())?;
            close("output", &got.output, &want.output, tolerance(dtype))?;
            close("log-sum-exp", &got.log_sum_exp, &want.log_sum_exp, tolerance(dtype))?;
        }
    }
    Ok(())
}

/// The definition in f64 on the CPU.
fn reference([q, k, v]: &[Tensor; 3], plan: &AttentionPlan) -> Result<Tensor> {
    let options = AttentionOptions::default().backend(Backend::Reference);
    Ok(mixed_attention(&wide(q)?, &wide(k)?, &wide(v)?, plan, &options)?)
}

/// A tensor on the CPU. It is copied on the device first: candle moves the whole storage that a view belongs to.
fn on_host(tensor: &Tensor) -> Result<Tensor> {
    Ok(tensor.force_contiguous()?.to_device(&Device::Cpu)?)
}

/// The same in f64.
fn wide(tensor: &Tensor) -> Result<Tensor> {
    Ok(on_host(tensor)?.to_dtype(DType::F64)?)
}

fn close(what: &str, got: &Tensor, want: &Tensor, tolerance: f64) -> Result<()> {
    check_close(what, &on_host(got)?, want, tolerance).map_err(anyhow::Error::msg)
}

fn bits(tensor: &Tensor) -> Result<Vec<u64>> {
    Ok(numbers(&on_host(tensor)?)?.into_iter().map(f64::to_bits).collect())
}

fn every_multiple_of_8(device: &Device, dtypes: &[DType], (first, last): (usize, usize)) -> Result<()> {
    for &dtype in dtypes {
        for head_dim in (first..=last).step_by(8) {
            supports(device, dtype, head_dim)?;
            let plan = two_domains(130, 9)?;
            let operands = projection(plan.len(), 2, head_dim, dtype, device)?;
            let got = mixed_attention(&operands[0], &operands[1], &operands[2], &plan, &fused())?;
            let what = format!("{dtype:?}, head_dim {head_dim}");
            close(&what, &got, &reference(&operands, &plan)?, tolerance(dtype))?;
        }
        ensure!(supports(device, dtype, 12).is_err() && supports(device, dtype, 264).is_err());
    }
    Ok(())
}

/// With and without split keys: parts are combined in one order, whichever comes last.
fn repeats_have_the_same_bits(device: &Device) -> Result<()> {
    for dtype in DTYPES {
        for (anchors, queries) in [(3000, 50), (5000, 20_000)] {
            let plan = two_domains(anchors, queries)?;
            let [q, k, v] = projection(plan.len(), 3, 64, dtype, device)?;
            let run = || mixed_attention(&q, &k, &v, &plan, &fused());
            let first = bits(&run()?)?;
            for repeat in 1..10 {
                ensure!(bits(&run()?)? == first, "{dtype:?}, {anchors} anchors: repeat {repeat} has other bits");
            }
        }
    }
    Ok(())
}

/// Threads do not meet in scratch memory, whatever they share. What they expect is known before, so that their launches
/// meet.
fn threads_share_a_plan(device: &Device) -> Result<()> {
    let plan = two_domains(2000, 300)?;
    let started = Barrier::new(4);
    let work = |number: usize| -> Result<()> {
        let prepare = || -> Result<([Tensor; 3], Tensor)> {
            let operands = projection(plan.len(), 3, 64, DTYPES[number % 3], device)?;
            let want = reference(&operands, &plan)?;
            Ok((operands, want))
        };
        let prepared = prepare();
        // All wait here, also the one that failed.
        started.wait();
        let (operands, want) = prepared?;
        for round in 0..50 {
            let got = mixed_attention(&operands[0], &operands[1], &operands[2], &plan, &fused())?;
            close(&format!("thread {number}, round {round}"), &got, &want, tolerance(got.dtype()))?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|number| scope.spawn(move || work(number))).collect();
        threads.into_iter().try_for_each(|thread| match thread.join() {
            Ok(result) => result,
            Err(_) => anyhow::bail!("a thread panicked"),
        })
    })
}

/// A stride of 0 over heads, which no tensor map can express.
fn heads_that_share_their_keys_are_read_in_place(device: &Device) -> Result<()> {
    for dtype in DTYPES {
        let plan = two_domains(700, 80)?;
        let shape = (1, 6, plan.len(), 64);
        let q = random(shape, dtype, device)?;
        let shared = || -> Result<Tensor> { Ok(random((1, 1, plan.len(), 64), dtype, device)?.broadcast_as(shape)?) };
        let operands = [q, shared()?, shared()?];
        let got = mixed_attention(&operands[0], &operands[1], &operands[2], &plan, &fused())?;
        close(&format!("{dtype:?}"), &got, &reference(&operands, &plan)?, tolerance(dtype))?;
    }
    Ok(())
}

/// Rows that do not begin at multiples of 16 bytes are copied first.
fn rows_at_odd_addresses_are_read(device: &Device) -> Result<()> {
    for dtype in DTYPES {
        let plan = two_domains(200, 31)?;
        let wide = [(); 3].map(|()| random((1, plan.len(), 2, 67), dtype, device));
        let odd = |tensor: Result<Tensor>| -> Result<Tensor> { Ok(tensor?.narrow(3, 3, 64)?.transpose(1, 2)?) };
        let [q, k, v] = wide.map(odd);
        let operands = [q?, k?, v?];
        let got = mixed_attention(&operands[0], &operands[1], &operands[2], &plan, &fused())?;
        close(&format!("{dtype:?}"), &got, &reference(&operands, &plan)?, tolerance(dtype))?;
    }
    Ok(())
}

/// Everything that a kernel can meet, in a call so small that a memory checker gets through it: two batch rows of few
/// queries, keys of the input and of a cache, some of them hidden, rotated, and split.
fn split_keys_rope_padding_and_cache(device: &Device) -> Result<()> {
    let (batch, heads, head_dim, queries, anchors) = (2, 2, 64, 37, 1500);
    let groups = [TokenSpec::cached("anchors"), TokenSpec::new("queries", queries)];
    let pattern = AttentionPattern::queries(["queries"]).attend_to(["anchors", "queries"]);
    let plan = AttentionPlan::new(groups, [pattern])?;
    let layout = CacheLayout::new([("anchors", anchors)])?;
    let schedule = plan.resolve(Some(&layout))?.schedule(batch, heads, TileShape { queries: 128, keys: 128 }, 100);
    ensure!(schedule.partial_slots() > 0, "no keys are split: {:?}", schedule.items());

    let padding = |tokens: usize| -> Result<KeyPadding> {
        let real: Vec<u8> = (0..batch * tokens).map(|token| u8::from(token % 5 != 2 && token % 700 > 99)).collect();
        Ok(KeyPadding::from_mask(&Tensor::from_vec(real, (batch, tokens), &Device::Cpu)?)?)
    };
    let positions = random((batch, queries, 3), DType::F32, &Device::Cpu)?;
    let options = |device: &Device, backend| -> Result<AttentionOptions> {
        let angles = Rope::new(&RopeConfig::new(head_dim), device)?.frequencies(&positions.to_device(device)?)?;
        Ok(AttentionOptions::default().backend(backend).rope(&angles).key_padding(padding(queries)?))
    };
    for dtype in DTYPES {
        let of = |tokens: usize| random((batch, heads, tokens, head_dim), dtype, device);
        let [q, k, v] = [of(queries)?, of(queries)?, of(queries)?];
        let cached = [of(anchors)?, of(anchors)?];
        let cache = |[k, v]: [Tensor; 2]| -> Result<KvCache> {
            Ok(KvCache::from_groups([("anchors", k, v)], Some(padding(anchors)?))?)
        };
        let of_host = cache([wide(&cached[0])?, wide(&cached[1])?])?;
        let (k_host, v_host) = (wide(&k)?, wide(&v)?);
        let definition = options(&Device::Cpu, Backend::Reference)?;
        let want = mixed_attention_cached(&wide(&q)?, Some((&k_host, &v_host)), &of_host, &plan, &definition)?;
        let of_device = cache(cached)?;
        let got = mixed_attention_cached(&q, Some((&k, &v)), &of_device, &plan, &options(device, Backend::Fused)?)?;
        close(&format!("{dtype:?}"), &got, &want, tolerance(dtype))?;
    }
    Ok(())
}

fn tf32_is_near_and_not_the_same(device: &Device) -> Result<()> {
    let plan = two_domains(900, 100)?;
    let operands = projection(plan.len(), 3, 64, DType::F32, device)?;
    let run = |tf32| mixed_attention(&operands[0], &operands[1], &operands[2], &plan, &fused().tf32(tf32));
    let (exact, rounded) = (run(false)?, run(true)?);
    close("TF32", &rounded, &reference(&operands, &plan)?, 5e-3)?;
    ensure!(bits(&exact)? != bits(&rounded)?, "the option changes nothing");
    Ok(())
}

/// Each device has its own schedule of a plan, its own kernels and its own memory; calls in turns, and in threads.
fn two_devices_share_a_plan(device: &Device) -> Result<()> {
    let Ok(second) = Device::new_cuda(1) else {
        println!("skipped: there is one device");
        return Ok(());
    };
    let devices = [device, &second];
    let plan = two_domains(1500, 90)?;
    let prepare = |device: &&Device| -> Result<([Tensor; 3], Tensor)> {
        let operands = projection(plan.len(), 2, 64, DType::F16, device)?;
        let want = reference(&operands, &plan)?;
        Ok((operands, want))
    };
    let prepared = devices.iter().map(prepare).collect::<Result<Vec<_>>>()?;
    let run = |(operands, _): &([Tensor; 3], Tensor)| {
        Ok::<_, anyhow::Error>(mixed_attention(&operands[0], &operands[1], &operands[2], &plan, &fused())?)
    };
    let mut results = Vec::new();
    for _ in 0..10 {
        results.extend(prepared.iter().map(run).collect::<Result<Vec<_>>>()?);
    }
    for (number, got) in results.iter().enumerate() {
        close(&format!("call {number}"), got, &prepared[number % 2].1, tolerance(DType::F16))?;
    }
    let [operands, foreign] = [&prepared[0].0, &prepared[1].0];
    let mixed = mixed_attention(&operands[0], &operands[1], &foreign[2], &plan, &fused());
    ensure!(mixed.is_err_and(|error| error.to_string().contains("values")), "values of another device went through");
    devices.iter().for_each(|device| drop(device.synchronize()));
    thread::scope(|scope| {
        let work = |device| -> Result<()> {
            let (operands, want) = prepare(&device)?;
            (0..20).try_for_each(|_| {
                let got = mixed_attention(&operands[0], &operands[1], &operands[2], &plan, &fused())?;
                close("in a thread", &got, &want, tolerance(DType::F16))
            })
        };
        let threads: Vec<_> = devices.map(|device| scope.spawn(move || work(device))).into_iter().collect();
        threads.into_iter().try_for_each(|thread| match thread.join() {
            Ok(result) => result,
            Err(_) => anyhow::bail!("a thread panicked"),
        })
    })
}

/// softmax(q kᵀ / √head_dim) v in f64 for some queries: `q [heads, queries, head_dim]`, `k, v [heads, keys, head_dim]`.
fn attend(q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor> {
    let (q, k, v) = (wide(q)?, wide(k)?, wide(v)?);
    let scores = (q.matmul(&k.t()?)? / (q.dim(2)? as f64).sqrt())?;
    Ok(candle_nn::ops::softmax_last_dim(&scores)?.matmul(&v)?)
}

/// Whether so many bytes are free; says so if not.
fn has_room(device: &Device, bytes: usize) -> Result<bool> {
    let free = free_memory(device)?;
    let room = free >= bytes;
    if !room {
        println!("skipped: needs {} GiB, {} GiB are free", bytes >> 30, free >> 30);
    }
    Ok(room)
}

fn free_memory(device: &Device) -> Result<usize> {
    match device {
        Device::Cpu => anyhow::bail!("not a GPU"),
        #[cfg(feature = "cuda")]
        Device::Cuda(device) => {
            device.cuda_stream().context().bind_to_thread()?;
            Ok(candle_core::cuda::cudarc::driver::result::mem_get_info()?.0)
        }
        #[cfg(feature = "metal")]
        Device::Metal(device) => {
            let device = device.metal_device();
            // candle allocates the next power of two.
            Ok(device.recommended_max_working_set_size().saturating_sub(device.current_allocated_size()) / 2)
        }
        #[allow(unreachable_patterns, reason = "with both features there is no other")]
        other => anyhow::bail!("no kernels for {:?}", other.location()),
    }
}

fn a_million_queries_see_32k_keys(device: &Device) -> Result<()> {
    let (queries, keys, heads, head_dim) = (1 << 20, 32_768, 3, 64);
    let plan = AttentionPlan::new(
        [TokenSpec::new("queries", queries), TokenSpec::cached("anchors")],
        [AttentionPattern::queries(["queries"]).attend_to(["anchors"])],
    )?;
    for dtype in DTYPES {
        if !has_room(device, 4 * queries * heads * head_dim * dtype.size_in_bytes())? {
            continue;
        }
        let q = random((1, queries, heads, head_dim), dtype, device)?.transpose(1, 2)?;
        let [k, v] = [(); 2].map(|()| random((1, heads, keys, head_dim), dtype, device));
        let (k, v) = (k?, v?);
        // Padding in the middle, so that not all tiles are alike.
        let real: Vec<u8> = (0..keys).map(|key| u8::from(!(9000..10_001).contains(&key))).collect();
        let padding = KeyPadding::from_mask(&Tensor::from_vec(real, (1, keys), &Device::Cpu)?)?;
        let cache = KvCache::from_groups([("anchors", k.clone(), v.clone())], Some(padding))?;
        let got = mixed_attention_cached(&q, None, &cache, &plan, &fused())?;
        let visible = |tensor: &Tensor| -> Result<Tensor> {
            Ok(Tensor::cat(&[tensor.narrow(2, 0, 9000)?, tensor.narrow(2, 10_001, keys - 10_001)?], 2)?.i(0)?)
        };
        let (k, v) = (visible(&k)?, visible(&v)?);
        for start in [0, 300_000, queries - 16] {
            let want = attend(&q.i(0)?.narrow(1, start, 16)?, &k, &v)?;
            close(&format!("{dtype:?}, query {start}"), &got.i(0)?.narrow(1, start, 16)?, &want, tolerance(dtype))?;
        }
    }
    Ok(())
}

/// Queries, keys and values of more than 2³¹ elements each; the keys that matter are the last ones.
fn queries_beyond_two_to_the_31_elements(device: &Device) -> Result<()> {
    let (heads, head_dim, anchors) = (3, 64, 700);
    let tokens = (1usize << 31) / (heads * head_dim) + 100_000;
    let plan = AttentionPlan::new(
        [TokenSpec::new("queries", tokens - anchors), TokenSpec::new("anchors", anchors)],
        [AttentionPattern::queries(["queries", "anchors"]).attend_to(["anchors"])],
    )?;
    for dtype in [DType::F16, DType::F32] {
        let bytes = tokens * heads * head_dim * dtype.size_in_bytes();
        if !has_room(device, 5 * bytes)? {
            continue;
        }
        let places = [0, tokens / 2, tokens - anchors - 16];
        let empty = || Tensor::zeros((1, tokens, heads, head_dim), dtype, device);
        let (q, k, v) = (empty()?, empty()?, empty()?);
        for place in places {
            q.slice_set(&random((1, 16, heads, head_dim), dtype, device)?, 1, place)?;
        }
        for tensor in [&k, &v] {
            tensor.slice_set(&random((1, anchors, heads, head_dim), dtype, device)?, 1, tokens - anchors)?;
        }
        let [q, k, v] = [&q, &k, &v].map(|tensor| tensor.transpose(1, 2));
        let (q, k, v) = (q?, k?, v?);
        let got = mixed_attention(&q, &k, &v, &plan, &fused())?;
        let seen = |tensor: &Tensor| tensor.i(0)?.narrow(1, tokens - anchors, anchors);
        for place in places {
            let want = attend(&q.i(0)?.narrow(1, place, 16)?, &seen(&k)?, &seen(&v)?)?;
            close(&format!("{dtype:?}, query {place}"), &got.i(0)?.narrow(1, place, 16)?, &want, tolerance(dtype))?;
        }
    }
    Ok(())
}
