//! Every detector finds the mistake it exists for, in every thread order, and is silent without it.

use bytemuck::{NoUninit, Pod, Zeroable};
use half::f16;
use libtest_mimic::Trial;

use super::Way;
use FindingKind::*;
use emulator::{Finding, FindingKind, Kernels, Launch, TensorMap};

/// Ascending, descending and a few random orders.
const ORDERS: [u64; 5] = [0, 1, 2, 3, 4];

/// Kernel and what it ends with; several kinds where it depends on who runs first.
const BASIC: [(&str, &[FindingKind]); 20] = [
    ("missing_barrier", &[Race, Uninitialised]),
    ("missing_barrier_before_reuse", &[Race]),
    ("missing_warp_barrier", &[Race, Uninitialised]),
    ("named_barrier_of_the_wrong_warps", &[Race, Uninitialised]),
    ("early_arrival", &[Race]),
    ("read_beyond_the_buffer", &[OutOfBounds]),
    ("write_beyond_the_buffer", &[OutOfBounds]),
    ("write_to_an_input", &[OutOfBounds]),
    ("beyond_shared_memory", &[OutOfBounds]),
    ("misaligned_read", &[Misuse]),
    ("uninitialised_shared_memory", &[Uninitialised]),
    ("uninitialised_global_memory", &[Uninitialised]),
    ("copy_read_before_its_wait", &[Asynchronous]),
    ("copy_read_before_the_barrier", &[Race, Asynchronous, Uninitialised]),
    ("two_blocks_write_one_address", &[Blocks]),
    ("combination_without_fences", &[Blocks]),
    ("combination_released_too_early", &[Blocks]),
    ("divergent_shuffle", &[Divergence]),
    ("shuffles_of_different_lines", &[Divergence]),
    ("barrier_that_a_lane_skips", &[Divergence]),
];

const HOPPER: [(&str, &[FindingKind]); 13] = [
    ("tile_read_before_its_wait", &[Asynchronous, Uninitialised]),
    ("wait_for_the_wrong_parity", &[Asynchronous]),
    ("too_many_bytes_expected", &[Deadlock]),
    ("too_few_bytes_expected", &[Deadlock]),
    ("mbarrier_without_initialisation", &[Misuse]),
    ("mbarrier_used_before_the_barrier", &[Race, Misuse]),
    ("tile_overwritten_while_read", &[Race, Asynchronous]),
    ("block_ends_during_a_load", &[Asynchronous]),
    ("result_read_before_its_wait", &[Asynchronous]),
    ("wgmma_without_its_fence", &[Misuse]),
    ("tile_given_back_before_the_wait", &[Race, Asynchronous]),
    ("operand_without_a_proxy_fence", &[Asynchronous]),
    ("wgmma_by_half_a_warpgroup", &[Divergence]),
];

#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct DetectorArguments {
    input: u64,
    output: u64,
    partials: u64,
    counter: u64,
    seeded: u32,
    padding: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct HopperDetectorArguments {
    map: TensorMap,
    input: u64,
    output: u64,
    seeded: u32,
    padding: [u32; 27],
}

fn launch_basic(kernels: &Kernels, name: &str, seeded: bool, order: u64) -> Result<(), Finding> {
    const BLOCKS: usize = 3;
    const THREADS: usize = 64;
    let device = kernels.device();
    let input = device.input("input", &[1.0f32; BLOCKS * THREADS]);
    let output = device.output::<f32>("output", BLOCKS * THREADS);
    let partials = device.output::<f32>("partials", BLOCKS * THREADS);
    let counter = device.in_out("counter", &[0u32]);
    let arguments = DetectorArguments {
        input: input.address(),
        output: output.address(),
        partials: partials.address(),
        counter: counter.address(),
        seeded: seeded.into(),
        padding: 0,
    };
    let launch =
        Launch { grid: [BLOCKS as u32, 1, 1], block: [THREADS as u32, 1, 1], shared_bytes: THREADS * 16, order };
    device.launch(name, launch, &arguments)
}

fn launch_hopper(kernels: &Kernels, name: &str, seeded: bool, order: u64) -> Result<(), Finding> {
    const SIDE: usize = 64;
    let device = kernels.device();
    let tensor = device.input("tensor", &vec![f16::ONE; 2 * SIDE * SIDE]);
    let input = device.input("input", &[1.0f32; 1024]);
    let output = device.output::<f32>("output", 160);
    let (side, whole) = (SIDE as u64, 4 * (SIDE * SIDE) as u64);
    let map = TensorMap::new(&tensor, &[side, 2 * side, 1, 1], &[2 * side, whole, whole], &[64, 64, 1, 1], 128);
    let arguments = HopperDetectorArguments {
        map,
        input: input.address(),
        output: output.address(),
        seeded: seeded.into(),
        padding: [0; 27],
    };
    let launch = Launch { grid: [1; 3], block: [160, 1, 1], shared_bytes: 64 * 64 * 2 + 128, order };
    device.launch(name, launch, &arguments)
}

pub fn trials(way: &Way) -> Vec<Trial> {
    let mut trials = file_trials(way, "detectors.cu", &BASIC, launch_basic);
    trials.extend(file_trials(way, "detectors_hopper.cu", &HOPPER, launch_hopper));
    trials
}

type Table = &'static [(&'static str, &'static [FindingKind])];

fn file_trials(
    way: &Way,
    file: &'static str,
    table: Table,
    launch: fn(&Kernels, &str, bool, u64) -> Result<(), Finding>,
) -> Vec<Trial> {
    let kernels = way.kernels(file, table.iter().map(|(name, _)| *name).collect());
    let trial = |&(name, kinds): &'static (&'static str, &'static [FindingKind])| {
        way.trial("detector", name, kernels, move |kernels| {
            super::check_detector(&ORDERS, kinds, |seeded, order| launch(kernels, name, seeded, order))
        })
    };
    table.iter().map(trial).collect()
}
