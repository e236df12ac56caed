//! The registers that tiles take, as a compiler allocates them.
//!
//! The table counts what a tile holds (`Tiling::registers`). This is what LLVM makes of the whole kernel, addresses and all,
//! for an AMD GPU with the registers of an Apple GPU: another compiler, but the same question.

use anyhow::{Result, ensure};
use libtest_mimic::Trial;

use super::kernels::ELEMENTS;
use super::{path, shape};
use candle_mixed_attention::kernels::metal::recipes;
use candle_mixed_attention::kernels::metal::tiling::{Element, REGISTERS, TILINGS, Tiling};
use emulator::{Compiler, trial};

/// Up to here nothing may be spilled. Longer rows of output fill most registers on their own.
const MAX_HEAD_DIM: usize = 128;

pub fn trials(compiler: &Result<Compiler, String>) -> Vec<Trial> {
    let mut trials = Vec::new();
    for (element, families) in ELEMENTS {
        let is_wanted = |tiling: &&Tiling| {
            tiling.head_dim <= MAX_HEAD_DIM && families.iter().any(|&family| tiling.serves(family, element))
        };
        for tiling in TILINGS.iter().filter(is_wanted) {
            let name = format!("metal_registers::{}_{}_{}", element.policy(), tiling.head_dim, shape(tiling));
            let compiler_of_check = compiler.clone();
            trials.push(trial(&name, compiler, move || {
                check(&compiler_of_check.map_err(anyhow::Error::msg)?, element, tiling)
            }));
        }
    }
    trials
}

fn check(compiler: &Compiler, element: Element, tiling: &Tiling) -> Result<()> {
    let recipe = recipes::mixed_attention(tiling, element, tiling.head_dim);
    let defines: Vec<&str> = recipe.defines.iter().map(String::as_str).collect();
    let allocated = compiler.registers(&path(&recipe), recipe.function, &defines, REGISTERS)?;
    ensure!(allocated.spilled == 0, "{} of more than {REGISTERS} registers are spilled", allocated.spilled);
    let counted = tiling.registers(tiling.head_dim);
    ensure!(counted <= allocated.used, "counted {counted} registers, LLVM needs {}", allocated.used);
    Ok(())
}
