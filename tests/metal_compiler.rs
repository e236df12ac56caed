//! Every Metal kernel through Apple's compiler, without a warning. No GPU is needed.
//!
//! Without `xcrun metal` the tests are ignored, each with the reason in its name.

#[allow(dead_code, reason = "the emulated tests use the rest")]
#[path = "support/metal_kernels.rs"]
mod metal_kernels;

use std::fs;
use std::process::Command;

use libtest_mimic::{Arguments, Failed, Trial};

use candle_mixed_attention::kernels::metal::source::{Recipe, text};
use metal_kernels::all_recipes;

fn main() {
    let arguments = Arguments::from_args();
    let compiler = Command::new("xcrun").args(["-sdk", "macosx", "metal", "--version"]).output();
    let missing = match compiler {
        Ok(output) if output.status.success() => None,
        Ok(_) => Some("xcrun has no Metal compiler"),
        Err(_) => Some("no xcrun on this machine"),
    };
    let trial = |recipe: Recipe| {
        let name = format!("{}::{}", recipe.function, recipe.defines.join(","));
        let name = missing.map_or(name.clone(), |reason| format!("{name} ({reason})"));
        Trial::test(name, move || compile(&recipe)).with_ignored_flag(missing.is_some())
    };
    libtest_mimic::run(&arguments, all_recipes().into_iter().map(trial).collect()).exit();
}

fn compile(recipe: &Recipe) -> Result<(), Failed> {
    // bf16 came with Metal 3.1; the rest must not need it.
    let standard =
        if recipe.defines.iter().any(|define| define == "TILE_ELEMENT=Bf16") { "metal3.1" } else { "metal3.0" };
    let folder = tempfile::tempdir()?;
    let path = folder.path().join(format!("{}.metal", recipe.function));
    fs::write(&path, text(recipe))?;
    let mut command = Command::new("xcrun");
    command.args(["-sdk", "macosx", "metal", "-Wall", "-Werror", "-fno-fast-math", "-c"]);
    command.arg(format!("-std={standard}")).arg(&path).arg("-o").arg(folder.path().join("kernel.air"));
    let output = command.output()?;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned().into()) }
}
