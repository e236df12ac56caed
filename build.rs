//! Compiles the CUDA kernels with `nvcc`, only with the feature `cuda`, into images that are embedded in the crate.
//!
//! `compute_80` PTX runs on every GPU since Ampere; the driver compiles it for the device when it is loaded. Kernels
//! that use instructions of Hopper are machine code for `sm_90a`. Nothing is downloaded and nothing of the toolkit is
//! linked. Under docs.rs, which has no toolkit, the list of images stays empty.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::{env, fs, thread};

#[path = "kernels/cuda/nvcc.rs"]
mod nvcc;
#[path = "src/kernels/cuda/recipes.rs"]
mod recipes;
#[allow(dead_code, reason = "the launch uses the rest")]
#[path = "src/kernels/cuda/tiling.rs"]
mod tiling;

use recipes::{Recipe, Target};

const KERNELS: &str = "kernels/cuda";

/// Set, it makes warnings of nvcc errors: a toolkit to come may warn of what is fine.
const STRICT: &str = "MIXED_ATTENTION_NVCC_STRICT";

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=src/kernels/cuda/recipes.rs");
    println!("cargo:rerun-if-changed=src/kernels/cuda/tiling.rs");
    println!("cargo:rerun-if-changed={KERNELS}");
    println!("cargo:rerun-if-env-changed=NVCC");
    println!("cargo:rerun-if-env-changed={STRICT}");
    for variable in nvcc::TOOLKIT_VARIABLES {
        println!("cargo:rerun-if-env-changed={variable}");
    }
    if env::var_os("CARGO_FEATURE_CUDA").is_none() {
        return;
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let kernels = if env::var_os("DOCS_RS").is_some() { Vec::new() } else { recipes::all() };
    if let Err(reason) = build(&kernels, &out) {
        println!("cargo::error={}", reason.replace('\n', " | "));
    }
}

/// Compiles all kernels and writes the list of images.
fn build(kernels: &[Recipe], out: &Path) -> Result<(), String> {
    if !kernels.is_empty() {
        let nvcc = nvcc::find()?;
        compile(kernels, &nvcc, out)?;
    }
    let mut list = String::from("&[\n");
    for kernel in kernels {
        let (name, shared_bytes, image) = (&kernel.name, kernel.shared_bytes, out.join(image_name(kernel)));
        let code = match kernel.target {
            Target::Compute80 => format!("Code::Ptx(include_str!({image:?}))"),
            Target::Sm90a => format!("Code::Machine(include_bytes!({image:?}))"),
        };
        let entry = format!("Image {{ name: {name:?}, shared_bytes: {shared_bytes}, code: {code} }}");
        writeln!(list, "    {entry},").map_err(|error| error.to_string())?;
    }
    list.push_str("]\n");
    let path = out.join("cuda_images.rs");
    fs::write(&path, list).map_err(|error| format!("cannot write {}: {error}", path.display()))
}

fn image_name(kernel: &Recipe) -> String {
    let extension = match kernel.target {
        Target::Compute80 => "ptx",
        Target::Sm90a => "cubin",
    };
    format!("{}.{extension}", kernel.name)
}

/// One `nvcc` per kernel, as many at a time as there are processors.
fn compile(kernels: &[Recipe], nvcc: &Path, out: &Path) -> Result<(), String> {
    let next = Mutex::new(kernels.iter());
    let failures = Mutex::new(Vec::new());
    let work = || {
        loop {
            let Some(kernel) = next.lock().unwrap().next() else { break };
            if let Err(reason) = compile_one(kernel, nvcc, out) {
                failures.lock().unwrap().push(reason);
            }
        }
    };
    thread::scope(|scope| {
        let workers = thread::available_parallelism().map_or(1, usize::from).min(kernels.len());
        (0..workers).for_each(|_| {
            scope.spawn(work);
        });
    });
    let failures = failures.into_inner().unwrap();
    if failures.is_empty() { Ok(()) } else { Err(failures.join("\n")) }
}

fn compile_one(kernel: &Recipe, nvcc: &Path, out: &Path) -> Result<(), String> {
    let mut command = Command::new(nvcc);
    command.args(nvcc::FLAGS);
    if env::var_os(STRICT).is_some() {
        command.args(["-Werror", "all-warnings"]);
    }
    match kernel.target {
        Target::Compute80 => command.args(["-ptx", "-arch=compute_80"]),
        // Written out: the shorthand `-arch=sm_90a` is not the same thing for every nvcc.
        Target::Sm90a => command.args(["-cubin", "-gencode=arch=compute_90a,code=sm_90a", "-Xptxas=-v"]),
    };
    command.arg("-I").arg(KERNELS);
    command.args(kernel.defines.iter().map(|define| format!("-D{define}")));
    command.arg(Path::new(KERNELS).join(kernel.file)).arg("-o").arg(out.join(image_name(kernel)));
    let output = command.output().map_err(|error| format!("{} does not run: {error}", nvcc.display()))?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    if !output.status.success() {
        return Err(format!("nvcc cannot compile {}:\n{text}", kernel.name));
    }
    // Compilers differ in what they warn of and how well they keep a kernel in registers; scripts/check-sass.sh reads
    // the rest of the log.
    let notable = ["warning", "Performance Loss", "setmaxnreg"];
    for line in text.lines().filter(|line| notable.iter().any(|text| line.contains(text))) {
        println!("cargo::warning={}: {line}", kernel.name);
    }
    let log = out.join(&kernel.name).with_extension("log");
    fs::write(&log, text.as_bytes()).map_err(|error| format!("cannot write {}: {error}", log.display()))
}
