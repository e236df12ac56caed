//! The tests would notice: kernels with one mistake each are found out by the case that is named.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use half::f16;
use libtest_mimic::Trial;

use super::launch::{self, CallKernels};
use super::source::Recipe;
use super::tuning::{Element, Family, Row};
use super::{folder, recipes};
use crate::emulated_kernels::case::CASES;
use crate::emulated_kernels::{Operands, check};
use crate::emulator::{Compiler, Finding, FindingKind, Kernels, Source, trial};
use FindingKind::*;

/// How a mistake shows.
enum Shows {
    /// As one of these findings; which, may depend on who runs first.
    Finding(&'static [FindingKind]),
    /// In the numbers.
    Numbers,
}

/// A mistake in a file of `kernels/metal/`.
struct Mutant {
    name: &'static str,
    file: &'static str,
    right: &'static str,
    wrong: &'static str,
    head_dim: usize,
    case: &'static str,
    shows: Shows,
}

const ATTENTION: &str = "mixed_attention.metal";

const MUTANTS: [Mutant; 14] = [
    Mutant {
        name: "no_barrier_behind_the_load",
        file: ATTENTION,
        right: "    threadgroup_barrier(mem_flags::mem_threadgroup);\n    // A simdgroup past",
        wrong: "    // A simdgroup past",
        head_dim: 64,
        case: "self",
        shows: Shows::Finding(&[Race, Uninitialised]),
    },
    Mutant {
        name: "barrier_that_orders_no_memory",
        file: ATTENTION,
        right: "    threadgroup_barrier(mem_flags::mem_threadgroup);\n    // A simdgroup past",
        wrong: "    threadgroup_barrier(mem_flags::mem_none);\n    // A simdgroup past",
        head_dim: 64,
        case: "self",
        shows: Shows::Finding(&[Race]),
    },
    Mutant {
        name: "one_stage_overwritten_while_read",
        file: ATTENTION,
        right: "if (STAGES == 1) threadgroup_barrier(mem_flags::mem_threadgroup);",
        wrong: "",
        head_dim: 256,
        case: "padding",
        shows: Shows::Finding(&[Race]),
    },
    Mutant {
        name: "second_stage_forgotten",
        file: ATTENTION,
        right: "stage = STAGES - 1 - stage;",
        wrong: "stage = 0;",
        head_dim: 64,
        case: "self",
        shows: Shows::Finding(&[Race]),
    },
    Mutant {
        name: "rows_past_the_end_of_an_item",
        file: ATTENTION,
        right: "min(item.query_len - first_row, SIMDGROUP_ROWS)",
        wrong: "SIMDGROUP_ROWS",
        head_dim: 64,
        case: "tails",
        shows: Shows::Finding(&[Blocks, OutOfBounds]),
    },
    Mutant {
        name: "invisible_rows_are_loaded",
        file: ATTENTION,
        right: "ALL_VISIBLE || (visible >> row & 1) != 0",
        wrong: "true",
        head_dim: 64,
        case: "padding",
        shows: Shows::Numbers,
    },
    Mutant {
        name: "invisible_keys_have_a_weight",
        file: ATTENTION,
        right: "if (!ALL_VISIBLE && (mine >> n * 8 & 2) == 0) weight.y = 0.0f;",
        wrong: "",
        head_dim: 64,
        case: "tails",
        shows: Shows::Numbers,
    },
    Mutant {
        name: "sums_are_not_rescaled",
        file: ATTENTION,
        right: "elements(rows.output[i][c]) * correction",
        wrong: "elements(rows.output[i][c])",
        head_dim: 64,
        case: "self",
        shows: Shows::Numbers,
    },
    Mutant {
        name: "cached_values_of_another_head",
        file: ATTENTION,
        right: "row_offset(arguments.cache_values, batch, head, step.value_row)",
        wrong: "row_offset(arguments.cache_values, batch, 0, step.value_row)",
        head_dim: 64,
        case: "cache_and_fresh_keys",
        shows: Shows::Numbers,
    },
    Mutant {
        name: "queries_are_not_rotated",
        file: ATTENTION,
        right: "pair = rotate(pair, *reinterpret_cast<const device float2*>(angle));",
        wrong: "",
        head_dim: 64,
        case: "rope",
        shows: Shows::Numbers,
    },
    Mutant {
        name: "simdgroups_share_rows_of_a_slot",
        file: ATTENTION,
        right: "tile_row = first_row + row;",
        wrong: "tile_row = row;",
        head_dim: 64,
        case: "split_keys",
        shows: Shows::Finding(&[Race, Uninitialised]),
    },
    Mutant {
        name: "parts_have_equal_weights",
        file: "combine_split_keys.metal",
        right: "fast::exp2(state[0] - maximum)",
        wrong: "1.0f",
        head_dim: 64,
        case: "split_keys",
        shows: Shows::Numbers,
    },
    Mutant {
        name: "one_row_too_many_is_rotated",
        file: "rotate_keys.metal",
        right: "if (row >= arguments.rows) return;",
        wrong: "if (row > arguments.rows) return;",
        head_dim: 64,
        case: "rope",
        shows: Shows::Finding(&[OutOfBounds]),
    },
    Mutant {
        name: "channels_are_turned_the_wrong_way",
        file: "rotation.h",
        right: "x.x * angle.x - x.y * angle.y",
        wrong: "x.x * angle.x + x.y * angle.y",
        head_dim: 64,
        case: "rope",
        shows: Shows::Numbers,
    },
];

pub fn trials(compiler: &Result<Compiler, String>) -> Vec<Trial> {
    let mutant_trial = |mutant: &'static Mutant| {
        let compiler_of_test = compiler.clone();
        trial(&format!("metal_mutants::{}", mutant.name), compiler, move || {
            is_found(&compiler_of_test.map_err(anyhow::Error::msg)?, mutant)
        })
    };
    MUTANTS.iter().map(mutant_trial).collect()
}

fn is_found(compiler: &Compiler, mutant: &Mutant) -> Result<()> {
    let folder = mutated(mutant)?;
    let (element, head_dim) = (Element::F16, mutant.head_dim);
    let row = Row::of(Family::Apple7, element, head_dim).context("a row")?;
    let compile = |recipe: Recipe| {
        let path = folder.path().join(format!("{}.metal", recipe.function));
        let defines: Vec<&str> = recipe.defines.iter().map(String::as_str).collect();
        Kernels::compile(compiler, Source { path: &path, kernels: &[recipe.function], defines: &defines })
    };
    let kernels = CallKernels {
        attend: &compile(recipes::mixed_attention(row, element, head_dim))?,
        rotate: &compile(recipes::rotate_keys(element))?,
        combine: &compile(recipes::combine_split_keys(element))?,
    };
    let case = CASES.iter().find(|case| case.name == mutant.case).context("a case of this name")?;
    let outcome =
        check::<f16>(case, head_dim, Operands::F16, |problem, order| launch::run(row, kernels, problem, order));
    let error = outcome.err().context("nobody noticed")?;
    let finding = error.chain().find_map(|cause| cause.downcast_ref::<Finding>());
    let expected = match mutant.shows {
        Shows::Finding(kinds) => finding.is_some_and(|finding| kinds.contains(&finding.kind)),
        Shows::Numbers => finding.is_none() && format!("{error:#}").contains("off by"),
    };
    ensure!(expected, "noticed in another way: {error:#}");
    Ok(())
}

/// A copy of the kernels with the mistake.
fn mutated(mutant: &Mutant) -> Result<tempfile::TempDir> {
    let copy = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    for entry in fs::read_dir(folder())? {
        let path = entry?.path();
        let name = path.file_name().context("a file")?;
        let mut text = fs::read_to_string(&path)?;
        if name == Path::new(mutant.file) {
            ensure!(text.matches(mutant.right).count() == 1, "'{}' is not in {} once", mutant.right, mutant.file);
            text = text.replace(mutant.right, mutant.wrong);
        }
        fs::write(copy.path().join(name), text)?;
    }
    Ok(copy)
}
