//! Mistakes in the kernels that the cases find.

use anyhow::{Context, Result};
use half::f16;
use libtest_mimic::Trial;

use super::folder;
use super::launch::{self, CallKernels};
use crate::emulated_kernels::mutation::{Mutation, Sign, WRONG_NUMBERS};
use crate::emulated_kernels::numbers::Number;
use crate::emulated_kernels::{Operands, check};
use candle_mixed_attention::kernels::metal::recipes;
use candle_mixed_attention::kernels::metal::source::Recipe;
use candle_mixed_attention::kernels::metal::tiling::{CANDIDATES, Element, Family, Tiling};
use emulator::FindingKind::*;
use emulator::{Compiler, Kernels, Source, trial};

const ATTENTION: &str = "mixed_attention.metal";

/// With two stages.
const HEAD_DIM: usize = 64;

/// With one stage.
const WIDE_HEAD_DIM: usize = 256;

const MUTATIONS: [Mutation; 20] = [
    Mutation {
        name: "keys_of_the_first_head",
        file: ATTENTION,
        from: "kv_head = item.kv_head",
        to: "kv_head = 0",
        case: "grouped_heads",
        shows_as: WRONG_NUMBERS,
    },
    Mutation {
        name: "biases_are_scaled",
        file: ATTENTION,
        from: "added.y = bias[key + 1] * inverse_scale;",
        to: "added.y = bias[key + 1];",
        case: "bias",
        shows_as: WRONG_NUMBERS,
    },
    Mutation {
        name: "keys_outside_of_windows_are_seen",
        file: ATTENTION,
        from: "if (has_windows && !ALL_VISIBLE) hide_outside(scores, step_window(step, first_query), lane);",
        to: "",
        case: "causal",
        shows_as: WRONG_NUMBERS,
    },
    Mutation {
        name: "windows_are_those_of_the_next_query",
        file: ATTENTION,
        from: "hide_outside(scores, step_window(step, first_query), lane);",
        to: "hide_outside(scores, step_window(step, first_query + 1), lane);",
        case: "causal",
        shows_as: WRONG_NUMBERS,
    },
    Mutation {
        name: "log_sum_exps_are_of_one_part",
        file: "combine_split_keys.metal",
        from: "log_sum_exp(maximum, sum)",
        to: "log_sum_exp(maximum, 1.0f)",
        case: "split_keys_in_a_window",
        shows_as: WRONG_NUMBERS,
    },
    Mutation {
        name: "no_barrier_behind_the_load",
        file: ATTENTION,
        from: "threadgroup_barrier(mem_flags::mem_threadgroup);\n        stage =",
        to: "stage =",
        case: "self",
        shows_as: Sign::Found(&[Race, Uninitialised]),
    },
    Mutation {
        name: "barrier_that_orders_no_memory",
        file: ATTENTION,
        from: "threadgroup_barrier(mem_flags::mem_threadgroup);\n        stage =",
        to: "threadgroup_barrier(mem_flags::mem_none);\n        stage =",
        case: "self",
        shows_as: Sign::Found(&[Race]),
    },
    Mutation {
        name: "second_stage_forgotten",
        file: ATTENTION,
        from: "stage = STAGES - 1 - stage;",
        to: "stage = 0;",
        case: "self",
        shows_as: Sign::Found(&[Race]),
    },
    Mutation {
        name: "rows_past_the_end_of_an_item",
        file: ATTENTION,
        from: "min(item.query_len - first_row, SIMDGROUP_ROWS)",
        to: "SIMDGROUP_ROWS",
        case: "tails",
        shows_as: Sign::Found(&[Blocks, OutOfBounds]),
    },
    Mutation {
        name: "invisible_rows_are_loaded",
        file: ATTENTION,
        from: "is_copy && (ALL_VISIBLE || (visible >> row & 1) != 0)",
        to: "is_copy",
        case: "padding",
        shows_as: Sign::Found(&[OutOfBounds]),
    },
    Mutation {
        name: "invisible_keys_have_a_weight",
        file: ATTENTION,
        from: "if (!ALL_VISIBLE && (mine >> n * 8 & 2) == 0) weight.y = 0.0f;",
        to: "",
        case: "tails",
        shows_as: WRONG_NUMBERS,
    },
    Mutation {
        name: "sums_are_not_rescaled",
        file: ATTENTION,
        from: "float2(fma(older.x, correction, added.x), fma(older.y, correction, added.y))",
        to: "older + added",
        case: "self",
        shows_as: WRONG_NUMBERS,
    },
    Mutation {
        name: "channels_of_queries_in_another_order",
        file: ATTENTION,
        from: "pair_of(channels[k], channels[k + WIDTH])",
        to: "pair_of(channels[2 * k], channels[2 * k + 1])",
        case: "self",
        shows_as: WRONG_NUMBERS,
    },
    Mutation {
        name: "channels_of_the_output_in_another_order",
        file: ATTENTION,
        from: "run * 8 + lane.column * 2 + (c - run) * 2",
        to: "c * 8 + lane.column",
        case: "self",
        shows_as: WRONG_NUMBERS,
    },
    Mutation {
        name: "cached_values_of_another_head",
        file: ATTENTION,
        from: "row_offset(arguments.cache_values, batch, kv_head, step.value_row)",
        to: "row_offset(arguments.cache_values, batch, 0, step.value_row)",
        case: "cache_and_fresh_keys",
        shows_as: WRONG_NUMBERS,
    },
    Mutation {
        name: "queries_are_not_rotated",
        file: ATTENTION,
        from: "pair = rotate(pair, *reinterpret_cast<const device float2*>(angles + channel + 2 * k));",
        to: "",
        case: "rope",
        shows_as: WRONG_NUMBERS,
    },
    Mutation {
        name: "simdgroups_share_rows_of_a_slot",
        file: ATTENTION,
        from: "tile_row = first_row + row;",
        to: "tile_row = row;",
        case: "split_keys",
        shows_as: Sign::Found(&[Race, Uninitialised]),
    },
    Mutation {
        name: "parts_have_equal_weights",
        file: "combine_split_keys.metal",
        from: "fast::exp2(state[0] - maximum)",
        to: "1.0f",
        case: "split_keys",
        shows_as: WRONG_NUMBERS,
    },
    Mutation {
        name: "one_row_too_many_is_rotated",
        file: "rotate_keys.metal",
        from: "if (row >= arguments.rows) return;",
        to: "if (row > arguments.rows) return;",
        case: "rope",
        shows_as: Sign::Found(&[OutOfBounds]),
    },
    Mutation {
        name: "channels_are_turned_the_wrong_way",
        file: "rotation.h",
        from: "x.x * angle.x - x.y * angle.y",
        to: "x.x * angle.x + x.y * angle.y",
        case: "rope",
        shows_as: WRONG_NUMBERS,
    },
];

const WIDE_MUTATIONS: [Mutation; 1] = [Mutation {
    name: "one_stage_overwritten_while_read",
    file: ATTENTION,
    from: "if (STAGES == 1) threadgroup_barrier(mem_flags::mem_threadgroup);",
    to: "",
    case: "padding",
    shows_as: Sign::Found(&[Race]),
}];

/// With keys and values in device memory.
const DIRECT_MUTATIONS: [Mutation; 1] = [Mutation {
    name: "invisible_rows_are_multiplied_from_device_memory",
    file: ATTENTION,
    from: "if (ALL_VISIBLE || (visible >> row & 1) != 0) {\n            elements",
    to: "if (true) {\n            elements",
    case: "padding",
    shows_as: Sign::Found(&[OutOfBounds]),
}];

/// A mistake, the tile that has it, and a head_dim.
type Mutated = (&'static Mutation, Option<&'static Tiling>, usize);

/// With sums that are carried.
const F32_MUTATIONS: [Mutation; 2] = [
    Mutation {
        name: "carried_sums_keep_their_scale",
        file: ATTENTION,
        from: "const float factor = correction_of(carried.maximum[i], rows.maximum[i], scale_log2);",
        to: "const float factor = 1.0f;",
        case: "many_keys",
        shows_as: WRONG_NUMBERS,
    },
    Mutation {
        name: "carried_sums_are_forgotten",
        file: ATTENTION,
        from: "if (summed > CARRY_STEPS) collect(",
        to: "if (false) collect(",
        case: "many_keys",
        shows_as: WRONG_NUMBERS,
    },
];

pub fn trials(compiler: &Result<Compiler, String>) -> Vec<Trial> {
    let tuned = |head_dim| Tiling::of(Family::Apple7, Element::F16, head_dim);
    let direct = || CANDIDATES.iter().find(|tiling| tiling.stages == 0 && tiling.serves(Family::Apple9, Element::F16));
    let narrow = MUTATIONS.iter().map(|mutation| (mutation, tuned(HEAD_DIM), HEAD_DIM));
    let wide = WIDE_MUTATIONS.iter().map(|mutation| (mutation, tuned(WIDE_HEAD_DIM), WIDE_HEAD_DIM));
    let direct = DIRECT_MUTATIONS.iter().map(|mutation| (mutation, direct(), HEAD_DIM));
    let halves = narrow.chain(wide).chain(direct).map(|mutated| (mutated, Element::F16));
    let f32_tiling = || Tiling::of(Family::Apple7, Element::F32, HEAD_DIM);
    let floats = F32_MUTATIONS.iter().map(|mutation| ((mutation, f32_tiling(), HEAD_DIM), Element::F32));
    let mutation_trial = |((mutation, tiling, head_dim), element): (Mutated, Element)| {
        let compiler_of_test = compiler.clone();
        trial(&format!("metal_mutations::{}", mutation.name), compiler, move || {
            let (compiler, tiling) = (compiler_of_test.map_err(anyhow::Error::msg)?, tiling.context("a tile")?);
            match element {
                Element::F32 => is_found::<f32>(&compiler, mutation, tiling, head_dim, (element, Operands::F32)),
                _ => is_found::<f16>(&compiler, mutation, tiling, head_dim, (element, Operands::F16)),
            }
        })
    };
    halves.chain(floats).map(mutation_trial).collect()
}

fn is_found<T: Number>(
    compiler: &Compiler,
    mutation: &Mutation,
    tiling: &'static Tiling,
    head_dim: usize,
    (element, operands): (Element, Operands),
) -> Result<()> {
    let copy = mutation.copy(&folder())?;
    let compile = |recipe: Recipe| {
        let path = copy.path().join(format!("{}.metal", recipe.function));
        let defines: Vec<&str> = recipe.defines.iter().map(String::as_str).collect();
        Kernels::compile(compiler, Source { path: &path, kernels: &[recipe.function], defines: &defines })
    };
    let kernels = CallKernels {
        attend: &compile(recipes::mixed_attention(tiling, element, head_dim))?,
        rotate: &compile(recipes::rotate_keys(element))?,
        combine: &compile(recipes::combine_split_keys(element))?,
    };
    mutation.is_shown_by(check::<T>(mutation.case()?, head_dim, operands, |problem, order| {
        launch::run(element, tiling, kernels, problem, order, u64::MAX)
    }))
}
