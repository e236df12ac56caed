//! What Apple's compiler would refuse and the emulator would not: checks of the very text that it gets.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;

use super::kernels::all_recipes;
use candle_mixed_attention::kernels::metal::recipes;
use candle_mixed_attention::kernels::metal::source::{self, Recipe};
use candle_mixed_attention::kernels::metal::tiling::{Element, Family, Tiling};
use emulator::{Compiler, trial};

/// Text that kernels must not contain, and why.
const REFUSED: [(&str, &str); 3] = [("asm", "private intrinsics"), ("[&", "lambdas"), ("[=", "lambdas")];

pub fn trials(compiler: &Result<Compiler, String>) -> Vec<Trial> {
    let mut trials: Vec<Trial> = all_recipes()
        .into_iter()
        .map(|recipe| {
            let name = format!("metal_language::{}::{}", recipe.function, recipe.defines.join(","));
            let compiler_of_check = compiler.clone();
            trial(&name, compiler, move || check(&compiler_of_check.map_err(anyhow::Error::msg)?, &recipe))
        })
        .collect();
    let refused = || Ok(refuses_what_metal_lacks().map_err(|error| format!("{error:#}"))?);
    trials.push(Trial::test("metal_language::texts_are_whole_and_public", refused));
    trials
}

/// By two front ends: C++14, with pointers that name their address spaces and keep to them; and OpenCL C++, which has
/// them on `this`, too.
fn check(compiler: &Compiler, recipe: &Recipe) -> Result<()> {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let path = folder.path().join(format!("{}.metal", recipe.function));
    fs::write(&path, source::text(recipe))?;
    compiler.check_language(&path, &[])?;
    compiler.check_opencl(&path, &[])
}

/// What is embedded is what lies in `kernels/metal/`, and needs nothing that is not public.
fn refuses_what_metal_lacks() -> Result<()> {
    for recipe in all_recipes() {
        let text = source::text(&recipe);
        ensure!(!text.contains("#include \""), "{}: includes a file of ours", recipe.function);
        let declared = |line: &str| line.contains("kernel") && line.contains(&format!(" void {}(", recipe.function));
        ensure!(text.lines().any(declared), "{}: no such kernel", recipe.function);
        // Comments may name what code may not.
        let code: String = text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect();
        for (refused, reason) in REFUSED {
            ensure!(!code.contains(refused), "{}: '{refused}' ({reason})", recipe.function);
        }
    }
    let tiling = Tiling::of(Family::Apple7, Element::F32, 64).context("a tile")?;
    let text = source::text(&recipes::mixed_attention(tiling, Element::F32, 64));
    for file in ["arguments.h", "elements.h", "matrices.h", "rotation.h", "mixed_attention.metal"] {
        let content = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels/metal").join(file))?;
        let missing = content.lines().find(|line| !line.starts_with('#') && !text.contains(line));
        ensure!(missing.is_none(), "{file}: the embedded text lacks '{}'", missing.unwrap_or_default());
    }
    Ok(())
}
