//! Mistakes put into the PTX on purpose: what the twins of the emulator, which replace inline PTX, could never see.
//!
//! A mutation changes instructions by what they are and not by the registers that a compiler happened to choose.

use std::fs;

use anyhow::{Result, bail, ensure};
use half::f16;
use libtest_mimic::Trial;

use super::launch::{self, CallKernels};
use super::ptx::Tools;
use crate::emulated_kernels::case::{self, Problem};
use crate::emulated_kernels::mutation::{Sign, WRONG_NUMBERS};
use crate::emulated_kernels::numbers::Number;
use crate::emulated_kernels::{Operands, check};
use candle_mixed_attention::kernels::cuda::recipes;
use candle_mixed_attention::kernels::cuda::tiling::{Element, SM80_TILINGS, SM90_TILINGS, Tiling, Variant};
use emulator::FindingKind::*;
use emulator::{Kernels, trial};

struct Mutation {
    name: &'static str,
    kernel: (Tiling, Element),
    /// What the line of an instruction contains.
    line: &'static str,
    which: Which,
    edit: Edit,
    /// The case that shows it.
    case: &'static str,
    shows_as: Sign,
}

/// Which of the lines change.
enum Which {
    All,
    First,
    Last,
}

enum Edit {
    Delete,
    /// This text, once in the line, becomes another one.
    Replace(&'static str, &'static str),
    /// Two registers, counted from 0 through the line, change places.
    Swap(usize, usize),
    /// A register becomes a number.
    Fix(usize, &'static str),
}
use Edit::*;
use Which::*;

const HEAD_DIM: usize = 64;
const SM80: (Tiling, Element) = (Tiling::Sm80(&SM80_TILINGS[1]), Element::F16);
const SM80_F32: (Tiling, Element) = (Tiling::Sm80(&SM80_TILINGS[7]), Element::F32);
const SM90: (Tiling, Element) = (Tiling::Sm90(&SM90_TILINGS[0]), Element::F16);

const MMA: &str = "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32";
const FROM_SHARED: &str = "accumulate, 1, 1, 0, 0;";
const FROM_REGISTERS: &str = "accumulate, 1, 1, 1;";

/// Products of queries and 128 keys.
const SCORES_OF_A_WIDE_STEP: &str = "m64n128k16";

/// In the numbering of `Swap` and `Fix`, the registers in front of their first descriptor: their accumulators.
const SCORES: usize = 64;

#[rustfmt::skip]
const MUTATIONS: &[Mutation] = &[
    // Fragments.
    mutation("values_are_not_transposed", SM80, ".trans.", All, Replace(".trans.", "."), "tails", WRONG_NUMBERS),
    mutation("keys_are_transposed", SM80, ".x4.shared", All, Replace(".x4.", ".x4.trans."), "tails", WRONG_NUMBERS),
    mutation("f16_is_multiplied_as_bf16", SM80, MMA, All, Replace(".f16.f16.", ".bf16.bf16."), "tails", WRONG_NUMBERS),
    mutation("quarters_of_a_are_swapped", SM80, MMA, All, Swap(5, 6), "tails", WRONG_NUMBERS),
    mutation("halves_of_b_are_swapped", SM80, MMA, All, Swap(8, 9), "tails", WRONG_NUMBERS),
    mutation("accumulators_are_swapped", SM80, MMA, All, Swap(10, 11), "tails", WRONG_NUMBERS),
    mutation("halves_are_packed_in_the_wrong_order", SM80, "cvt.rn.f16x2.f32", All, Swap(1, 2), "tails", WRONG_NUMBERS),
    mutation("half_floats_are_packed_as_bf16", SM80, "cvt.rn.f16x2.f32", All, Replace("f16x2", "bf16x2"), "tails", WRONG_NUMBERS),
    mutation("a_matrix_is_loaded_from_beside", SM80, "ldmatrix", First, Replace("];", "+16];"), "tails", WRONG_NUMBERS),
    mutation("a_product_is_left_out", SM80_F32, "mma.sync.aligned.m16n8k8", Last, Delete, "tails", WRONG_NUMBERS),
    mutation("small_parts_are_not_rounded", SM80_F32, "cvt.rna.tf32.f32", All, Replace("cvt.rna.tf32.f32", "mov.b32"), "tails", WRONG_NUMBERS),
    // Lanes.
    mutation("lanes_read_one_lane", SM80, "shfl.sync.bfly", All, Replace("bfly", "idx"), "tails", WRONG_NUMBERS),
    mutation("barriers_of_the_block_are_missing", SM80, "bar.sync", All, Delete, "cache", Sign::Found(&[Race, Asynchronous, Uninitialised])),
    // Copies.
    mutation("copies_are_not_awaited", SM80, "cp.async.wait_group", All, Delete, "tails", Sign::Found(&[Asynchronous, Uninitialised])),
    mutation("a_copy_too_many_is_left_under_way", SM80, "cp.async.wait_group", First, Replace("0;", "1;"), "cache", Sign::Found(&[Asynchronous, Uninitialised, Race])),
    mutation("copies_are_never_committed", SM80, "cp.async.commit_group", All, Delete, "tails", Sign::Found(&[Asynchronous, Uninitialised])),
    mutation("hidden_rows_are_copied", SM80, "cp.async.cg", All, Fix(2, "16"), "padding", Sign::Found(&[OutOfBounds])),
    mutation("copies_go_to_the_wrong_chunk", SM80, "cp.async.cg", Last, Replace("], [", "+8], ["), "cache", Sign::Found(&[Misuse])),
    // Between blocks.
    mutation("counting_orders_nothing", SM80, "atom.acq_rel.gpu.global.add", All, Replace(".acq_rel.gpu", ""), "split_keys", Sign::Found(&[Blocks])),
    // Products of a warpgroup.
    mutation("hopper_values_are_not_transposed", SM90, FROM_REGISTERS, All, Replace("1;", "0;"), "tails", Sign::Any),
    mutation("hopper_keys_are_transposed", SM90, FROM_SHARED, All, Replace(" 0;", " 1;"), "tails", WRONG_NUMBERS),
    mutation("hopper_f16_is_multiplied_as_bf16", SM90, "wgmma.mma_async", All, Replace(".f16.f16", ".bf16.bf16"), "tails", WRONG_NUMBERS),
    mutation("queries_and_keys_change_places", SM90, SCORES_OF_A_WIDE_STEP, All, Swap(SCORES, SCORES + 1), "cache", Sign::Any),
    mutation("sums_begin_with_what_was_there", SM90, "setp.ne.b32 accumulate", First, Replace("setp.ne", "setp.eq"), "tails", WRONG_NUMBERS),
    mutation("probabilities_are_swapped", SM90, FROM_REGISTERS, All, Swap(SCORES / 2 + 1, SCORES / 2 + 2), "tails", WRONG_NUMBERS),
    mutation("wgmma_has_no_fence", SM90, "wgmma.fence", All, Delete, "tails", Sign::Found(&[Misuse])),
    mutation("wgmma_is_never_committed", SM90, "wgmma.commit_group", All, Delete, "tails", Sign::Found(&[Asynchronous])),
    mutation("wgmma_is_not_awaited", SM90, "wgmma.wait_group", All, Delete, "tails", Sign::Found(&[Asynchronous])),
    mutation("one_wgmma_too_many_is_left_under_way", SM90, "wgmma.wait_group.sync.aligned 0", All, Replace(" 0", " 1"), "tails", Sign::Found(&[Asynchronous])),
    mutation("queries_are_not_shown_to_wgmma", SM90, "fence.proxy.async", All, Delete, "tails", Sign::Found(&[Asynchronous])),
    // mbarriers and TMA.
    mutation("mbarriers_are_not_shown_to_tma", SM90, "fence.mbarrier_init", All, Delete, "tails", Sign::Found(&[Asynchronous])),
    mutation("an_mbarrier_expects_too_many", SM90, "mbarrier.init", All, Fix(1, "13"), "cache", Sign::Found(&[Deadlock])),
    mutation("an_mbarrier_expects_too_few", SM90, "mbarrier.init", All, Fix(1, "1"), "cache", Sign::Found(&[Race, Asynchronous, Deadlock, Misuse])),
    mutation("waits_are_for_one_parity", SM90, "mbarrier.try_wait", All, Fix(1, "0"), "cache", Sign::Found(&[Race, Asynchronous, Deadlock, Uninitialised])),
    mutation("waits_are_not_repeated", SM90, ", 1, 0, ended;", All, Replace("1, 0,", "1, 1,"), "cache", Sign::Found(&[Race, Asynchronous, Uninitialised, Misuse])),
    mutation("tiles_are_not_given_back", SM90, "mbarrier.arrive.shared", All, Delete, "cache", Sign::Found(&[Deadlock])),
    mutation("too_few_bytes_are_expected", SM90, "mbarrier.arrive.expect_tx", All, Fix(1, "8192"), "cache", Sign::Found(&[Asynchronous, Deadlock])),
    mutation("too_many_bytes_are_expected", SM90, "mbarrier.arrive.expect_tx", All, Fix(1, "32768"), "cache", Sign::Found(&[Deadlock])),
    mutation("coordinates_are_swapped", SM90, "cp.async.bulk.tensor", All, Swap(2, 3), "cache", Sign::Any),
    mutation("tiles_go_to_each_others_place", SM90, "cp.async.bulk.tensor", Last, Swap(0, 6), "cache", Sign::Found(&[Misuse])),
    mutation("registers_are_no_multiple_of_8", SM90, "setmaxnreg.inc", All, Replace(" 1", " 9"), "tails", Sign::Found(&[Misuse])),
];

const fn mutation(
    name: &'static str,
    kernel: (Tiling, Element),
    line: &'static str,
    which: Which,
    edit: Edit,
    case: &'static str,
    shows_as: Sign,
) -> Mutation {
    Mutation { name, kernel, line, which, edit, case, shows_as }
}

pub fn trials(tools: &Result<Tools, String>) -> Vec<Trial> {
    let trial = |mutation: &'static Mutation| {
        let run = tools.clone();
        trial(&format!("ptx_mutation::{}", mutation.name), tools, move || {
            mutation.is_noticed(&run.map_err(anyhow::Error::msg)?)
        })
    };
    MUTATIONS.iter().map(trial).collect()
}

impl Mutation {
    fn is_noticed(&self, tools: &Tools) -> Result<()> {
        let recipe = recipes::attention(self.kernel.0, self.kernel.1, Variant::Plain);
        let text = self.apply(&fs::read_to_string(tools.ptx(&recipe)?)?)?;
        let file = tempfile::Builder::new().suffix(".ptx").tempfile_in(env!("CARGO_TARGET_TMPDIR"))?;
        fs::write(file.path(), text)?;
        let kernels = tools.interpret(file.path())?;
        self.shows_as.is_shown_by(match self.kernel.1 {
            Element::F16 => self.check::<f16>(Operands::F16, &kernels),
            Element::F32 => self.check::<f32>(Operands::F32, &kernels),
            other => bail!("no mutation is of {}", other.name()),
        })
    }

    fn check<T: Number>(&self, operands: Operands, kernels: &Kernels) -> Result<()> {
        let (tiling, element) = self.kernel;
        let kernels = CallKernels { attend: kernels, rotate: kernels };
        let Some(case) = case::find(self.case) else { bail!("no case '{}'", self.case) };
        let run = |problem: &Problem<T>, order| launch::run(element, tiling, kernels, problem, order);
        check(case, HEAD_DIM, operands, run)
    }

    /// The text with the mistake.
    fn apply(&self, text: &str) -> Result<String> {
        let lines: Vec<_> = text.lines().collect();
        let found: Vec<_> = (0..lines.len()).filter(|&number| lines[number].contains(self.line)).collect();
        ensure!(!found.is_empty(), "'{}' is nowhere in the PTX", self.line);
        let chosen = match self.which {
            All => &found[..],
            First => &found[..1],
            Last => &found[found.len() - 1..],
        };
        let mut mutated: Vec<_> = lines.iter().map(|line| line.to_string()).collect();
        for &number in chosen {
            mutated[number] = self.edit.apply(lines[number])?;
        }
        ensure!(mutated != lines, "nothing has changed");
        Ok(mutated.join("\n"))
    }
}

impl Edit {
    fn apply(&self, line: &str) -> Result<String> {
        match *self {
            Delete => Ok(String::new()),
            Replace(from, to) => {
                ensure!(line.matches(from).count() == 1, "'{from}' is not once in '{line}'");
                Ok(line.replace(from, to))
            }
            Swap(first, second) => {
                let registers = registers(line);
                let (Some(&a), Some(&b)) = (registers.get(first), registers.get(second)) else {
                    bail!("fewer registers than {second} in '{line}'");
                };
                let between = &line[a.1..b.0];
                Ok([&line[..a.0], &line[b.0..b.1], between, &line[a.0..a.1], &line[b.1..]].concat())
            }
            Fix(number, value) => {
                let registers = registers(line);
                let Some(&(start, end)) = registers.get(number) else {
                    bail!("fewer registers than {number} in '{line}'");
                };
                Ok([&line[..start], value, &line[end..]].concat())
            }
        }
    }
}

/// Where the registers of a line begin and end.
fn registers(line: &str) -> Vec<(usize, usize)> {
    let starts = line.match_indices('%').map(|(start, _)| start);
    let end = |start: usize| {
        let name = |c: char| c.is_ascii_alphanumeric() || c == '%';
        line[start..].find(|c| !name(c)).map_or(line.len(), |length| start + length)
    };
    starts.map(|start| (start, end(start))).collect()
}
