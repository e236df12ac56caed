//! Every Metal kernel through Apple's compiler, without a warning, as the version of the language that it runs as. No GPU
//! is needed.
//!
//! Without `xcrun metal` the tests are ignored, each with the reason in its name. Newer versions of the language
//! (`newer::`) are compiled as information: they are ignored unless asked for (`-- --ignored newer`).

#[allow(dead_code, reason = "the emulated tests use the rest")]
#[path = "support/metal_kernels.rs"]
mod metal_kernels;

use std::fs;
use std::process::Command;

use libtest_mimic::{Arguments, Failed, Trial};

use candle_mixed_attention::kernels::metal::source::{Language, Recipe, text};
use metal_kernels::all_recipes;

fn main() {
    let arguments = Arguments::from_args();
    let compiler = Command::new("xcrun").args(["-sdk", "macosx", "metal", "--version"]).output();
    let missing = match compiler {
        Ok(output) if output.status.success() => None,
        Ok(_) => Some("xcrun has no Metal compiler"),
        Err(_) => Some("no xcrun on this machine"),
    };
    let trial = |recipe: Recipe, language: Language, kind: &str| {
        let name = format!("{kind}{}::{}", recipe.function, recipe.defines.join(","));
        let name = missing.map_or(name.clone(), |reason| format!("{name} ({reason})"));
        Trial::test(name, move || compile(&recipe, language)).with_ignored_flag(missing.is_some() || !kind.is_empty())
    };
    let mut trials = Vec::new();
    for recipe in all_recipes() {
        for (major, minor) in NEWER {
            trials.push(trial(recipe.clone(), (major, minor), &format!("newer::{major}.{minor}::")));
        }
        let language = recipe.language();
        trials.push(trial(recipe, language, ""));
    }
    libtest_mimic::run(&arguments, trials).exit();
}

/// Versions that nothing is compiled as yet.
const NEWER: [Language; 3] = [(3, 2), (4, 0), (4, 1)];

fn compile(recipe: &Recipe, (major, minor): Language) -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join(format!("{}.metal", recipe.function));
    fs::write(&path, text(recipe))?;
    let mut command = Command::new("xcrun");
    command.args(["-sdk", "macosx", "metal", "-Wall", "-Wmetal-addr-spaces", "-Werror", "-fno-fast-math", "-c"]);
    command.arg(format!("-std=metal{major}.{minor}")).arg(&path).arg("-o").arg(folder.path().join("kernel.air"));
    let output = command.output()?;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned().into()) }
}
