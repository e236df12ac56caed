//! Mistakes put into the CUDA kernels on purpose.

use std::path::Path;

use anyhow::{Result, bail};
use half::f16;
use libtest_mimic::Trial;

use super::launch::{self, CallKernels};
use super::{FOLDER, variant_for};
use crate::emulated_kernels::case::Problem;
use crate::emulated_kernels::mutation::{Mutation, Sign, WRONG_NUMBERS};
use crate::emulated_kernels::numbers::Number;
use crate::emulated_kernels::{Operands, check};
use candle_mixed_attention::kernels::cuda::recipes::{self, Recipe};
use candle_mixed_attention::kernels::cuda::tiling::{Element, SM80_TILINGS, SM90_TILINGS, Sm80Tiling, Tiling};
use emulator::FindingKind::*;
use emulator::{Compiler, Kernels, Source, trial};

const HEAD_DIM: usize = 64;

/// Which kernel has the mistake.
type Kernel = (Tiling, Element);

const SM80: Kernel = (Tiling::Sm80(&SM80_TILINGS[1]), Element::F16);
const SM80_F32: Kernel = (Tiling::Sm80(&SM80_TILINGS[7]), Element::F32);
/// One that never carries: small errors of each step add up.
const SM80_F32_IN_ONE: Kernel = (Tiling::Sm80(&Sm80Tiling { carry_steps: 0, ..SM80_TILINGS[7] }), Element::F32);
const SM90: Kernel = (Tiling::Sm90(&SM90_TILINGS[0]), Element::F16);

const ATTENTION_SM80: &str = "attention_sm80.cuh";
const SM80_BLOCK: &str = "sm80_block.cuh";
const SM80_COPIES: &str = "sm80_copies.cuh";
const SM80_SCORES: &str = "sm80_scores.cuh";
const SM80_SOFTMAX: &str = "sm80_softmax.cuh";
const SM80_OUTPUT: &str = "sm80_output.cuh";
const ATTENTION_SM90: &str = "attention_sm90.cuh";
const SM90_PRODUCER: &str = "sm90_producer.cuh";
const SM90_SOFTMAX: &str = "sm90_softmax.cuh";
const SM90_STEPS: &str = "sm90_steps.cuh";

const MUTATIONS: [(Kernel, Mutation); 40] = [
    (
        SM80,
        Mutation {
            name: "keys_of_the_heads_of_queries",
            file: SM80_COPIES,
            from: "sm80_row<T>(view, item.batch, item.kv_head, row)",
            to: "sm80_row<T>(view, item.batch, 0, row)",
            case: "grouped_heads",
            shows_as: WRONG_NUMBERS,
        },
    ),
    (
        SM90,
        Mutation {
            name: "hopper_keys_of_the_first_head",
            file: SM90_PRODUCER,
            from: "int32_t(item.kv_head), batch",
            to: "0, batch",
            case: "grouped_heads",
            shows_as: WRONG_NUMBERS,
        },
    ),
    (
        SM80,
        Mutation {
            name: "biases_of_hidden_keys_are_read",
            file: SM80_SCORES,
            from: "if ((visible[n / 8] >> first >> (8 * n % 64 + e) & 1) == 0) continue;",
            to: "",
            case: "bias",
            shows_as: Sign::Found(&[OutOfBounds]),
        },
    ),
    (
        SM90,
        Mutation {
            name: "hopper_takes_biases_for_whole_steps",
            file: SM90_STEPS,
            from: " &&\n                              step_bias(attention, attention.steps[item.first_step + i], item.batch, item.head) == nullptr;",
            to: ";",
            case: "bias_of_the_cache",
            shows_as: WRONG_NUMBERS,
        },
    ),
    (
        SM80,
        Mutation {
            name: "keys_outside_of_windows_are_seen",
            file: ATTENTION_SM80,
            from: "if (always || !window.template covers<T::WARP_ROWS, T::KEYS>()) sm80_hide_outside<T>(scores, window);",
            to: "",
            case: "causal",
            shows_as: WRONG_NUMBERS,
        },
    ),
    (
        SM90,
        Mutation {
            name: "hopper_takes_one_step_too_many_for_whole",
            file: SM90_STEPS,
            from: "for (; i < whole; ++i)",
            to: "for (; i <= whole && i < wide; ++i)",
            case: "tails",
            shows_as: WRONG_NUMBERS,
        },
    ),
    (
        SM90,
        Mutation {
            name: "hopper_windows_of_the_next_consumer",
            file: SM90_STEPS,
            from: "item.query_start + consumer * 64);\n    };",
            to: "item.query_start + (consumer + 1) * 64);\n    };",
            case: "causal",
            shows_as: WRONG_NUMBERS,
        },
    ),
    (
        SM90,
        Mutation {
            name: "windows_are_one_key_too_wide",
            file: "window.cuh",
            from: "key - row <= last;",
            to: "key - row <= last + 1;",
            case: "causal",
            shows_as: WRONG_NUMBERS,
        },
    ),
    (
        SM80,
        Mutation {
            name: "log_sum_exps_are_of_one_part",
            file: "combine.cuh",
            from: "token, maximum, sum);",
            to: "token, maximum, 1.0f);",
            case: "split_keys_in_a_window",
            shows_as: WRONG_NUMBERS,
        },
    ),
    (
        SM80,
        Mutation {
            name: "copies_are_not_awaited",
            file: ATTENTION_SM80,
            from: "        ptx::cp_async_wait<0>();\n        __syncthreads();\n        if (step == 0)",
            to: "        __syncthreads();\n        if (step == 0)",
            case: "tails",
            shows_as: Sign::Found(&[Asynchronous, Uninitialised]),
        },
    ),
    (
        SM80,
        Mutation {
            name: "copies_of_values_are_not_awaited",
            file: ATTENTION_SM80,
            from: "        ptx::cp_async_wait<0>();\n        __syncthreads();\n        if (!last)",
            to: "        __syncthreads();\n        if (!last)",
            case: "tails",
            shows_as: Sign::Found(&[Asynchronous, Uninitialised]),
        },
    ),
    (
        SM80,
        Mutation {
            name: "values_are_replaced_while_read",
            file: ATTENTION_SM80,
            from: "        __syncthreads();\n        if (step == 0)",
            to: "        if (step == 0)",
            case: "cache",
            shows_as: Sign::Found(&[Race, Asynchronous, Uninitialised]),
        },
    ),
    (
        SM80,
        Mutation {
            name: "keys_are_replaced_while_read",
            file: ATTENTION_SM80,
            from: "        __syncthreads();\n        if (!last)",
            to: "        if (!last)",
            case: "cache",
            shows_as: Sign::Found(&[Race, Asynchronous, Uninitialised]),
        },
    ),
    (
        SM80,
        Mutation {
            name: "descriptions_are_replaced_while_read",
            file: SM80_BLOCK,
            from: "number % T::DESCRIPTIONS;",
            to: "number % T::DESCRIBED;",
            case: "cache",
            shows_as: WRONG_NUMBERS,
        },
    ),
    (
        SM80,
        Mutation {
            name: "a_step_is_not_described",
            file: ATTENTION_SM80,
            from: "shared, step + T::DESCRIBED);",
            to: "shared, step + T::DESCRIBED + 1);",
            case: "cache",
            shows_as: Sign::Found(&[Uninitialised, OutOfBounds, Misuse]),
        },
    ),
    (
        SM80,
        Mutation {
            name: "hidden_scores_stay",
            file: ATTENTION_SM80,
            from: "if (!whole) sm80_hide<T>(scores, shared.step(step)->visible);",
            to: "",
            case: "tails",
            shows_as: WRONG_NUMBERS,
        },
    ),
    (
        SM80,
        Mutation {
            name: "hidden_rows_are_read",
            file: SM80_COPIES,
            from: "channel_bytes + chunk * 16 < head_bytes && visible(i);",
            to: "channel_bytes + chunk * 16 < head_bytes;",
            case: "padding",
            // Past the end of the tensor, too.
            shows_as: Sign::Found(&[OutOfBounds]),
        },
    ),
    (
        SM80,
        Mutation {
            name: "older_sums_keep_their_scale",
            file: SM80_SOFTMAX,
            from: "fmaf(output, sums.correction.of[i][e / 2], products[i][n][e])",
            to: "output + products[i][n][e]",
            case: "cache",
            shows_as: WRONG_NUMBERS,
        },
    ),
    (
        SM80,
        Mutation {
            name: "queries_past_the_end_are_written",
            file: SM80_OUTPUT,
            from: "if (row < item.query_len && chunk * E::CHUNK < arguments.head_dim) {",
            to: "if (chunk * E::CHUNK < arguments.head_dim) {",
            case: "tails",
            shows_as: Sign::Found(&[OutOfBounds, Blocks]),
        },
    ),
    (
        SM80,
        Mutation {
            name: "parts_are_counted_before_they_are_written",
            file: "combine.cuh",
            from: "    T::sync();   // the whole slot is written, before the count\n",
            to: "",
            case: "split_keys",
            shows_as: Sign::Found(&[Blocks, Race, Uninitialised]),
        },
    ),
    (
        SM80,
        Mutation {
            name: "counters_are_left_behind",
            file: "combine.cuh",
            from: "if (complete) *counter = 0;",
            to: "",
            case: "split_keys",
            shows_as: Sign::Message("the counters are not ready"),
        },
    ),
    (
        SM80,
        Mutation {
            name: "parts_are_added_unweighted",
            file: "combine.cuh",
            from: "const float weight = ptx::exp2_approx(state.x - maximum);",
            to: "const float weight = 1.0f;",
            case: "split_keys",
            shows_as: WRONG_NUMBERS,
        },
    ),
    (
        SM80,
        Mutation {
            name: "rotation_has_a_wrong_sign",
            file: "rotation.cuh",
            from: "x0 * angle.x - x1 * angle.y",
            to: "x0 * angle.x + x1 * angle.y",
            case: "rope",
            shows_as: WRONG_NUMBERS,
        },
    ),
    (
        SM80,
        Mutation {
            name: "keys_come_from_the_span_before",
            file: "rotate_keys.cu",
            from: "if (arguments.spans[middle].first_row <= row) {",
            to: "if (arguments.spans[middle].first_row < row) {",
            case: "rope",
            shows_as: WRONG_NUMBERS,
        },
    ),
    (
        SM80_F32,
        Mutation {
            name: "products_of_small_parts_are_left_out",
            file: "elements.cuh",
            from: "            ptx::mma_m16n8k8_tf32(c, a.big, b.small);\n",
            to: "",
            case: "tails",
            shows_as: WRONG_NUMBERS,
        },
    ),
    (
        SM90,
        Mutation {
            name: "values_are_not_awaited",
            file: SM90_STEPS,
            from: "        ptx::mbarrier_wait(shared.barrier(S::VALUES_FULL, behind.stage), behind.parity);\n",
            to: "",
            case: "tails",
            shows_as: Sign::Found(&[Asynchronous, Uninitialised, Race]),
        },
    ),
    (
        SM90,
        Mutation {
            name: "keys_are_given_back_before_all_have_read_them",
            file: ATTENTION_SM90,
            from: "ptx::mbarrier_init(shared.barrier(S::KEYS_EMPTY, stage), T::CONSUMERS * 4);",
            to: "ptx::mbarrier_init(shared.barrier(S::KEYS_EMPTY, stage), T::CONSUMERS * 4 - 1);",
            case: "cache",
            shows_as: Sign::Found(&[Race, Asynchronous, Deadlock]),
        },
    ),
    (
        SM90,
        Mutation {
            name: "the_producer_waits_for_the_wrong_phase",
            file: SM90_PRODUCER,
            from: "ptx::mbarrier_wait(shared.barrier(S::KEYS_EMPTY, place.stage), place.parity ^ 1);",
            to: "ptx::mbarrier_wait(shared.barrier(S::KEYS_EMPTY, place.stage), place.parity);",
            case: "tails",
            shows_as: Sign::Found(&[Deadlock]),
        },
    ),
    (
        SM90,
        Mutation {
            name: "more_bytes_are_expected_than_come",
            file: SM90_PRODUCER,
            from: "ptx::mbarrier_arrive_expect_tx(full, T::TILE_BYTES);",
            to: "ptx::mbarrier_arrive_expect_tx(full, T::TILE_BYTES + 16);",
            case: "tails",
            shows_as: Sign::Found(&[Deadlock]),
        },
    ),
    (
        SM90,
        Mutation {
            name: "copied_values_lack_a_proxy_fence",
            file: SM90_PRODUCER,
            from: "    ptx::fence_proxy_async();   // wgmma reads what ordinary copies have written\n",
            to: "",
            case: "tails",
            shows_as: Sign::Found(&[Asynchronous]),
        },
    ),
    (
        SM90,
        Mutation {
            name: "hidden_values_are_multiplied_by_zero",
            file: SM90_PRODUCER,
            from: "const bool all_visible = (step.visible[0] & step.visible[1]) == ~uint64_t(0);",
            to: "const bool all_visible = true;",
            case: "padding",
            shows_as: WRONG_NUMBERS,
        },
    ),
    (
        SM90,
        Mutation {
            name: "sums_are_rescaled_under_way",
            file: SM90_STEPS,
            from: "            ptx::wgmma_wait<0>();\n            finish_output();\n            sm90_rescale",
            to: "            finish_output();\n            sm90_rescale",
            case: "cache",
            shows_as: Sign::Found(&[Asynchronous, Race]),
        },
    ),
    (
        SM90,
        Mutation {
            name: "output_overwrites_queries_that_are_read",
            file: ATTENTION_SM90,
            from: "        ptx::bar_sync(barrier, 128);   // all warps are done with the queries\n",
            to: "",
            case: "tails",
            shows_as: Sign::Found(&[Race, Asynchronous]),
        },
    ),
    (
        SM90,
        Mutation {
            name: "hidden_scores_of_the_second_word_stay",
            file: SM90_SOFTMAX,
            from: "(column < 64 ? low : high) >> shift",
            to: "low >> shift",
            case: "padding",
            shows_as: WRONG_NUMBERS,
        },
    ),
    (
        SM80_F32_IN_ONE,
        Mutation {
            name: "unchanged_maximum_leaves_a_rounding_error",
            file: "rebase.cuh",
            from: "ptx::exp2_approx(before - base);",
            to: "ptx::exp2_approx(before - base) * 1.0000005f;",
            case: "many_keys",
            shows_as: WRONG_NUMBERS,
        },
    ),
    (
        SM80_F32,
        Mutation {
            name: "carried_sums_keep_their_scale",
            file: "carried_sums.cuh",
            from: "ptx::exp2_approx(state.x - base[0])",
            to: "1.0f",
            case: "many_keys",
            shows_as: WRONG_NUMBERS,
        },
    ),
    (
        SM80_F32,
        Mutation {
            name: "sums_begin_with_what_is_carried",
            file: "carried_sums.cuh",
            from: "sum[0] = sum[1] = 0.0f;",
            to: "",
            case: "many_keys",
            shows_as: WRONG_NUMBERS,
        },
    ),
    (
        SM80_F32,
        Mutation {
            name: "carried_sums_are_forgotten",
            file: ATTENTION_SM80,
            from: "if (step >= T::CARRY_STEPS) sm80_collect(carried, sums);",
            to: "",
            case: "many_keys",
            shows_as: WRONG_NUMBERS,
        },
    ),
    (
        SM80_F32,
        Mutation {
            name: "output_grows_in_the_tensor_core",
            file: SM80_SOFTMAX,
            from: "products[T::ROW_TILES][WIDTH][4] = {};",
            to: "products[T::ROW_TILES][WIDTH][4];\n        for (int i = 0; i < T::ROW_TILES; ++i) for (int n = 0; n < WIDTH; ++n) \
             for (int e = 0; e < 4; ++e) { products[i][n][e] = sums.output[i][first + n][e] * sums.correction.of[i][e / 2]; \
             sums.output[i][first + n][e] = 0.0f; }",
            case: "many_keys",
            shows_as: WRONG_NUMBERS,
        },
    ),
    (
        SM80_F32,
        Mutation {
            name: "scores_grow_in_the_tensor_core",
            file: SM80_SCORES,
            from: "E::mma_rounded(scores[i][2 * n], a[i], left);",
            to: "E::mma(scores[i][2 * n], a[i], left);",
            case: "tails",
            shows_as: WRONG_NUMBERS,
        },
    ),
];

/// One test per mutation.
pub fn trials(compiler: &Result<Compiler, String>) -> Vec<Trial> {
    let trial_of = |(kernel, mutation): &'static (Kernel, Mutation)| {
        let compiler_of_test = compiler.clone();
        let generation = if *kernel == SM90 { "sm90" } else { "sm80" };
        trial(&format!("mutation::{generation}::{}", mutation.name), compiler, move || {
            let compiler = compiler_of_test.map_err(anyhow::Error::msg)?;
            mutation.is_shown_by(match kernel.1 {
                Element::F16 => run::<f16>(*kernel, mutation, Operands::F16, &compiler),
                Element::F32 => run::<f32>(*kernel, mutation, Operands::F32, &compiler),
                other => bail!("no mutation is of {}", other.name()),
            })
        })
    };
    MUTATIONS.iter().map(trial_of).collect()
}

/// Runs the case of a mutation on the kernel with the mistake.
fn run<T: Number>(
    (tiling, element): Kernel,
    mutation: &Mutation,
    operands: Operands,
    compiler: &Compiler,
) -> Result<()> {
    let folder = mutation.copy(Path::new(FOLDER))?;
    let case = mutation.case()?;
    let attend = compile(compiler, folder.path(), &recipes::attention(tiling, element, variant_for(case)))?;
    let rotate = match case.rope {
        true => compile(compiler, folder.path(), &recipes::rotate_keys(element))?,
        false => attend.clone(),
    };
    let kernels = CallKernels { attend: &attend, rotate: &rotate };
    check(case, HEAD_DIM, operands, |problem: &Problem<T>, order| launch::run(element, tiling, kernels, problem, order))
}

fn compile(compiler: &Compiler, folder: &Path, recipe: &Recipe) -> Result<Kernels> {
    let defines: Vec<&str> = recipe.defines.iter().map(String::as_str).collect();
    let path = folder.join(recipe.file);
    Kernels::compile(compiler, Source { path: &path, kernels: &[&recipe.name], defines: &defines })
}
