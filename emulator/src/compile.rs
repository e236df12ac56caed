//! From kernel source to a shared library, by whichever C++ compiler there is.

use std::collections::hash_map::DefaultHasher;
use std::fmt::Write as _;
use std::fs;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use tempfile::NamedTempFile;

use crate::metal;
use crate::metal_lint::unqualified_pointers;
use crate::source::{Source, folder};

/// The first clang that has the vector and number types of Metal.
const OLDEST_CLANG: u32 = 16;

/// The last one that is looked for by a name with its version.
const NEWEST_CLANG: u32 = 21;

/// Names a compiler to use instead of the first that is found.
const COMPILER_VARIABLE: &str = "EMULATOR_CXX";

/// Names the folder for what is compiled, for programs that do not lie in a build folder.
const CACHE_VARIABLE: &str = "EMULATOR_CACHE";

/// A C++20 compiler.
#[derive(Clone, Debug)]
pub struct Compiler {
    command: String,
    version: String,
}

/// What a kernel takes of the registers of a lane, as LLVM allocates them for an AMD GPU: 32 bits each, as Apple's are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registers {
    pub used: usize,
    /// Of them, how many were moved to memory for want of room.
    pub spilled: usize,
}

impl Registers {
    /// From the notes at the end of an assembler text.
    fn of(assembly: &str) -> Result<Self> {
        let number = |key: &str| -> Result<usize> {
            let line = assembly.lines().find_map(|line| line.trim().strip_prefix(key));
            Ok(line.with_context(|| format!("no '{key}' in the assembler text"))?.trim().parse()?)
        };
        Ok(Self { used: number(".vgpr_count:")?, spilled: number(".vgpr_spill_count:")? })
    }
}

/// Kernel code: little optimisation, so that a finding's line is the one that was written; uninitialised locals hold a
/// pattern; no contraction, so that results do not depend on the host.
const KERNEL_FLAGS: [&str; 7] = [
    "-O1",
    "-g1",
    "-fsanitize=thread",
    "-ffp-contract=off",
    "-ftrivial-auto-var-init=pattern",
    "-Wno-unknown-pragmas",
    "-Wno-psabi",
];

const ENGINE_FLAGS: [&str; 6] = ["-O2", "-g1", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror"];

/// clang leaves out the call for a read of what is written right after; a read of something uninitialised would pass.
const CLANG_KERNEL_FLAGS: [&str; 2] = ["-mllvm", "-tsan-instrument-read-before-write=1"];

impl Compiler {
    /// The compiler that `EMULATOR_CXX` names, else the first of the usual ones; or why there is none.
    pub fn find() -> Result<Self, String> {
        if let Ok(command) = std::env::var(COMPILER_VARIABLE) {
            return Self::probe(&command).ok_or(format!("{COMPILER_VARIABLE}={command} does not run"));
        }
        Self::first_of(&["g++", "clang++", "clang++-19", "c++"])
    }

    /// The same for Metal kernels, whose vector types only clang knows (version 16 or later).
    pub fn find_clang() -> Result<Self, String> {
        let versions = (OLDEST_CLANG..=NEWEST_CLANG).rev().map(|version| format!("clang++-{version}"));
        let commands = std::iter::once("clang++".to_string()).chain(versions);
        let found = Self::find().ok().into_iter().chain(commands.filter_map(|command| Self::probe(&command)));
        let found = found.into_iter().find(|compiler| compiler.clang_version() >= Some(OLDEST_CLANG));
        found.ok_or(format!("no clang++ {OLDEST_CLANG} or later found; set {COMPILER_VARIABLE}"))
    }

    fn first_of(commands: &[&str]) -> Result<Self, String> {
        let found = commands.iter().find_map(|command| Self::probe(command));
        found.ok_or(format!("no compiler found out of {}; set {COMPILER_VARIABLE}", commands.join(", ")))
    }

    /// The major version of a clang.
    fn clang_version(&self) -> Option<u32> {
        let (_, behind) = self.version.split_once("clang version ")?;
        behind.split('.').next()?.parse().ok()
    }

    fn is_clang(&self) -> bool {
        self.clang_version().is_some()
    }

    fn probe(command: &str) -> Option<Self> {
        let output = Command::new(command).arg("--version").output().ok()?;
        let version = String::from_utf8_lossy(&output.stdout).into_owned();
        output.status.success().then(|| Self { command: command.to_string(), version })
    }

    /// Compiles kernels and engine into one library, unless an earlier run did so from the same text.
    pub fn build(&self, source: Source<'_>) -> Result<PathBuf> {
        let engine = self.engine()?;
        let kernel_folder = source.path.parent().context("a kernel file in a folder")?;
        let is_metal = source.path.extension().is_some_and(|extension| extension == "metal");
        let vocabulary = folder().join(if is_metal { "metal" } else { "cuda" });
        let entry_text = if is_metal { metal::entry_text(source)? } else { entry_text(source) };
        let text = define_lines(source.defines) + &entry_text;
        let mut inputs = files(kernel_folder, &["cu", "cuh", "h", "metal"])?;
        inputs.extend(files(&vocabulary, &["cuh", "h", ""])?);
        inputs.extend(files(&folder().join("engine"), &["h"])?);
        let key = self.key(&inputs, &[&text, &format!("{:?}", engine)])?;
        let stem = source.path.file_stem().unwrap_or_default().to_string_lossy();
        cached(&format!("{stem}-{key:016x}.so"), |library| {
            let entry = library.with_extension("cpp");
            fs::write(&entry, &text)?;
            let object = library.with_extension("o");
            let mut command = Command::new(&self.command);
            command.arg("-std=c++20").args(KERNEL_FLAGS).arg("-fPIC").arg("-c").arg(&entry).arg("-o").arg(&object);
            command.arg("-I").arg(&vocabulary).arg("-I").arg(kernel_folder);
            if self.is_clang() {
                command.args(CLANG_KERNEL_FLAGS);
            }
            run(command)?;
            let mut command = Command::new(&self.command);
            command.arg("-shared").arg("-Wl,-Bsymbolic").arg(&object).args(&engine).arg("-o").arg(library);
            run(command)
        })
    }

    /// Compiles the interpreter of PTX and the engine into one library, unless an earlier run did so from the same text.
    pub(super) fn build_interpreter(&self) -> Result<PathBuf> {
        let engine = self.engine()?;
        let interpreter = self.objects("ptx")?;
        let key = self.key(&[], &[&format!("{engine:?} {interpreter:?}")])?;
        cached(&format!("ptx-{key:016x}.so"), |library| {
            let mut command = Command::new(&self.command);
            command.args(["-shared", "-Wl,-Bsymbolic"]).args(&interpreter).args(&engine).arg("-o").arg(library);
            run(command)
        })
    }

    /// Checks that a `.metal` file is the C++ that Metal is made of, and that its pointers name their address spaces and
    /// keep to them, without running anything.
    pub fn check_language(&self, path: &Path, defines: &[&str]) -> Result<()> {
        let unqualified = unqualified_pointers(&fs::read_to_string(path)?);
        ensure!(unqualified.is_empty(), "{}: no address space: {}", path.display(), unqualified.join("; "));
        let cache = cache_folder()?;
        let unit = tempfile::Builder::new().suffix(".cpp").tempfile_in(cache)?;
        fs::write(unit.path(), define_lines(defines) + &metal::checked_text(path)?)?;
        let mut command = Command::new(&self.command);
        // What Metal 3 is made of; Metal 4 is C++17.
        command.args(["-std=c++14", "-fsyntax-only", "-Wall", "-Wno-unused-function", "-DMSL_CHECK"]);
        command.arg("-I").arg(folder().join("metal")).arg("-I").arg(path.parent().context("a file in a folder")?);
        command.arg(unit.path());
        run(command)
    }

    /// Checks a `.metal` file with clang's front end for OpenCL C++ 2021, where a pointer or `this` without an address
    /// space is generic, as in Metal 4.1.
    pub fn check_opencl(&self, path: &Path, defines: &[&str]) -> Result<()> {
        for more in [&[][..], &["-DQUALIFIED_CONSTRUCTOR"]] {
            let (_unit, mut command) = self.opencl("clc++2021", path, None, defines)?;
            command.args(["-target", "spir64", "-fsyntax-only", "-Wall", "-Wno-unused-function"]).args(more);
            run(command)?;
        }
        Ok(())
    }

    /// Registers that a kernel takes with everything that its function constants switch on, if it may use no more than
    /// `most`.
    pub fn registers(&self, path: &Path, kernel: &str, defines: &[&str], most: usize) -> Result<Registers> {
        // The generic address space is an option of the 2021 standard that AMD GPUs lack in clang, and part of the other.
        let (unit, mut command) = self.opencl("clc++1.0", path, Some(kernel), defines)?;
        let assembly = unit.path().with_extension("s");
        command.args(["-target", "amdgcn-amd-amdhsa", "-mcpu=gfx1100", "-nogpulib", "-O3", "-ffp-contract=off"]);
        // Everything in one function, as in a GPU's own compiler.
        command.args(["-mllvm", "-amdgpu-function-calls=false", "-mllvm", "-amdgpu-early-inline-all=true"]);
        command.arg(format!("-DREGISTERS={most}")).arg("-S").arg("-o").arg(&assembly);
        run(command)?;
        let text = fs::read_to_string(&assembly);
        fs::remove_file(&assembly)?;
        Registers::of(&text?)
    }

    /// A file in OpenCL C++, and the command that reads it.
    fn opencl(
        &self,
        standard: &str,
        path: &Path,
        kernel: Option<&str>,
        defines: &[&str],
    ) -> Result<(NamedTempFile, Command)> {
        let unit = tempfile::Builder::new().suffix(".clcpp").tempfile_in(cache_folder()?)?;
        fs::write(unit.path(), define_lines(defines) + &metal::opencl_text(path, kernel)?)?;
        let mut command = Command::new(&self.command);
        command.args(["-x", "cl", "-cl-no-stdinc"]).arg(format!("-cl-std={standard}"));
        command
            .arg("-I")
            .arg(folder().join("metal_opencl"))
            .arg("-I")
            .arg(path.parent().context("a file in a folder")?);
        command.arg(unit.path());
        Ok((unit, command))
    }

    /// The engine's objects.
    fn engine(&self) -> Result<Vec<PathBuf>> {
        self.objects("engine")
    }

    /// The objects of all C++ files of a folder that knows the engine.
    fn objects(&self, name: &str) -> Result<Vec<PathBuf>> {
        let units = files(&folder().join(name), &["cpp"])?;
        let headers = [files(&folder().join("engine"), &["h"])?, files(&folder().join(name), &["h"])?].concat();
        units
            .iter()
            .map(|unit| {
                let key = self.key(&[headers.as_slice(), std::slice::from_ref(unit)].concat(), &[])?;
                let stem = unit.file_stem().unwrap_or_default().to_string_lossy();
                cached(&format!("{name}-{stem}-{key:016x}.o"), |object| {
                    let mut command = Command::new(&self.command);
                    command.arg("-std=c++20").args(ENGINE_FLAGS).args(["-fPIC", "-c"]);
                    command.arg(unit).arg("-o").arg(object);
                    run(command)
                })
            })
            .collect()
    }

    /// Changes whenever a result may change.
    fn key(&self, inputs: &[PathBuf], texts: &[&str]) -> Result<u64> {
        let flags = (KERNEL_FLAGS, CLANG_KERNEL_FLAGS, ENGINE_FLAGS);
        content_key(inputs, (&self.command, &self.version, flags, texts))
    }
}

/// Changes with the contents of files and with what else decides about a result.
pub(super) fn content_key(inputs: &[PathBuf], parameters: impl Hash) -> Result<u64> {
    let mut hasher = DefaultHasher::new();
    parameters.hash(&mut hasher);
    for path in inputs {
        path.hash(&mut hasher);
        fs::read(path).with_context(|| path.display().to_string())?.hash(&mut hasher);
    }
    Ok(hasher.finish())
}

/// `NAME=VALUE` as `#define NAME VALUE`.
fn define_lines(defines: &[&str]) -> String {
    defines.iter().map(|define| format!("#define {}\n", define.replacen('=', " ", 1))).collect()
}

/// A translation unit of the kernel's file and the table of its kernels.
fn entry_text(source: Source<'_>) -> String {
    let mut text = format!("#include <ptx.cuh>\n#include {:?}\n", source.path);
    let table = folder().join("engine/kernel_table.h");
    let _ = writeln!(text, "#include {table:?}\nextern \"C\" const emulator::Kernel emulator_kernels[] = {{");
    for kernel in source.kernels {
        let _ = writeln!(text, "    emulator::KernelEntry<&{kernel}>::named({kernel:?}),");
    }
    text + "    {nullptr, nullptr, 0}};\n"
}

pub(super) fn files(folder: &Path, extensions: &[&str]) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        let extension = path.extension().unwrap_or_default();
        if path.is_file() && extensions.iter().any(|wanted| extension == *wanted) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// The folder that `EMULATOR_CACHE` names, else `target/<profile>/emulator`: beside the folder of the program that runs.
fn cache_folder() -> Result<PathBuf> {
    let cache = match std::env::var_os(CACHE_VARIABLE) {
        Some(folder) => PathBuf::from(folder),
        None => {
            let program = std::env::current_exe()?;
            program.ancestors().nth(2).context("a program in a build folder")?.join("emulator")
        }
    };
    fs::create_dir_all(&cache)?;
    Ok(cache)
}

/// A file of the cache, made by `make` if it is not there. Whoever is second to make the same one overwrites it with
/// the same content.
pub(super) fn cached(name: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let cache = cache_folder()?;
    let finished = cache.join(name);
    if finished.exists() {
        return Ok(finished);
    }
    let work = tempfile::tempdir_in(&cache)?;
    let made = work.path().join(name);
    make(&made)?;
    fs::rename(&made, &finished)?;
    Ok(finished)
}

pub(super) fn run(mut command: Command) -> Result<()> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    if !output.status.success() {
        bail!("{command:?} failed:\n{}", String::from_utf8_lossy(&output.stderr));
    }
    ensure!(output.stderr.is_empty(), "{command:?} warns:\n{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
