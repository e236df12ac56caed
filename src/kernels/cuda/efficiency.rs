//! How much of a Hopper GPU the schedules of the GPU workloads keep busy, by a model.
//!
//! Tile waste, what items cost besides their steps, and the tail of the last round: the time that products of the visible
//! pairs alone would take on all multiprocessors, over the time until the last block ends. The clocks of a step are the
//! bounds of the machine code at head_dim 64 and 128, those of an item an estimate of latencies. Nothing here is measured;
//! the model compares schedules, not GPUs.

use super::launch::Call;
use super::tiling::{Element, Tiling};
use crate::kernels::call::CallShape;
use crate::kernels::schedule::{GpuSchedule, ScheduleInputs};
use crate::plan::{PaddingBits, StepItem};
use crate::{AttentionPattern, AttentionPlan, TokenSpec};
use std::sync::Arc;

const MULTIPROCESSORS: usize = 132;

/// Clocks of a step of one, two, … consumers at head_dim 64, and of one and two at 128.
const STEP_64: [f64; 3] = [1100.0, 1750.0, 2600.0];
const STEP_128: [f64; 2] = [1500.0, 2650.0];
/// Of a narrow step.
const NARROW_STEP: f64 = 400.0;
/// Of an item besides its steps: its queries come, the ends of its pipeline overlap with nothing, its output goes.
const ITEM: f64 = 3000.0;
/// Of a part besides that.
const PART: f64 = 1500.0;

struct Workload {
    plan: AttentionPlan,
    heads: usize,
    head_dim: usize,
    padding: Option<PaddingBits>,
}

/// Patterns of (queries, keys) over groups of these sizes.
fn workload(sizes: &[usize], patterns: &[(&[usize], &[usize])]) -> Workload {
    let name = |&group: &usize| format!("group {group}");
    let tokens = sizes.iter().enumerate().map(|(group, &size)| TokenSpec::new(name(&group), size));
    let pattern = |(queries, keys): &(&[usize], &[usize])| {
        AttentionPattern::queries(queries.iter().map(name)).attend_to(keys.iter().map(name))
    };
    let patterns: Vec<_> = patterns.iter().map(pattern).collect();
    let plan = AttentionPlan::new(tokens.collect::<Vec<_>>(), patterns).unwrap();
    Workload { plan, heads: 3, head_dim: 64, padding: None }
}

/// (visible pairs' time on all multiprocessors) / (time until the last block ends)
fn efficiency(workload: &Workload) -> f64 {
    let resolved = workload.plan.resolve(None).unwrap();
    let (heads, head_dim) = (workload.heads, workload.head_dim);
    let tiling = Tiling::of((9, 0), Element::F16, head_dim, true).unwrap();
    let tokens = resolved.ranges().input_tokens();
    let shape =
        CallShape { batch: 1, heads, kv_heads: heads, tokens, cache_tokens: 0, input_keys: true, head_dim, scale: 1.0 };
    let workers = tiling.workers(MULTIPROCESSORS);
    let call = Call { shape, element: Element::F16, tiling, multiprocessors: MULTIPROCESSORS, workers };
    let inputs = ScheduleInputs {
        tile: call.tile(),
        workers,
        persistent: call.persistent(),
        batch: 1,
        heads,
        group: 1,
        rotated: false,
        input_padding: workload.padding.clone().map(Arc::new),
        cache_padding: None,
    };
    let steps = GpuSchedule::new(&resolved, &inputs).steps;
    let clocks: &[f64] = if head_dim == 64 { &STEP_64 } else { &STEP_128 };
    let cost = |item: &StepItem| {
        let wide = item.last_step - item.first_step - item.narrow_steps;
        let part = if item.partial_slot == u32::MAX { 0.0 } else { PART };
        let consumers = (item.query_len as usize).div_ceil(64);
        f64::from(wide) * clocks[consumers - 1] + f64::from(item.narrow_steps) * NARROW_STEP + ITEM + part
    };
    let ends = (0..steps.blocks()).map(|block| {
        let first = &steps.items()[block];
        let next = |item: &&StepItem| steps.items().get(item.next as usize);
        std::iter::successors(Some(first), next).map(cost).sum::<f64>()
    });
    let visible = |item: &StepItem| {
        let steps = &steps.steps()[item.first_step as usize..item.last_step as usize];
        let keys: u32 = steps.iter().flat_map(|step| step.visible).map(u64::count_ones).sum();
        f64::from(item.query_len) * f64::from(keys)
    };
    let pairs: f64 = steps.items().iter().map(visible).sum();
    let tile = (call.tile().queries * call.tile().keys * MULTIPROCESSORS) as f64;
    pairs / tile * clocks[clocks.len() - 1] / ends.fold(0.0, f64::max)
}

/// Each of two domains has anchors, which the queries of both domains or its own see.
fn anchored(queries_see: [&[usize]; 2]) -> Workload {
    let size = 16_384;
    workload(&[size; 4], &[(&[0, 1], queries_see[0]), (&[2, 3], queries_see[1])])
}

fn groups() -> Workload {
    let keys: Vec<Vec<usize>> = (0..64).map(|group| if group == 0 { vec![0] } else { vec![group, 0] }).collect();
    let queries: Vec<[usize; 1]> = (0..64).map(|group| [group]).collect();
    let patterns: Vec<(&[usize], &[usize])> =
        queries.iter().zip(&keys).map(|(queries, keys)| (&queries[..], &keys[..])).collect();
    workload(&[512; 64], &patterns)
}

/// Half of the keys are padding.
fn padded() -> Workload {
    let padding = PaddingBits::new(1, 4 * 16_384, |_, token| token % 16_384 < 8_192);
    Workload { padding: Some(padding), ..anchored([&[0], &[2]]) }
}

#[test]
fn schedules_keep_a_hopper_busy() {
    let dense = Workload { heads: 16, head_dim: 128, ..workload(&[8192], &[(&[0], &[0])]) };
    let workloads = [
        ("A self", anchored([&[0], &[2]]), 0.95),
        ("A joint", anchored([&[0, 2], &[0, 2]]), 0.95),
        ("B", workload(&[16_384, 16_384, 65_536, 0], &[(&[2], &[0, 1]), (&[0, 1, 3], &[3])]), 0.95),
        ("C", workload(&[3586, 4096], &[(&[0], &[0]), (&[1], &[1])]), 0.88),
        ("D", groups(), 0.80),
        ("F", padded(), 0.95),
        ("G", dense, 0.95),
    ];
    let reached: Vec<_> = workloads.iter().map(|(name, workload, least)| (name, efficiency(workload), least)).collect();
    println!("{reached:?}");
    assert!(reached.iter().all(|(_, reached, least)| reached >= least), "{reached:?}");
}
