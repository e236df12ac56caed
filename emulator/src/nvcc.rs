//! From CUDA source to PTX, by the compiler that the crate's build uses.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::compile::{cached, content_key, files, run};

#[path = "../../kernels/cuda/nvcc.rs"]
mod toolkit;

/// An nvcc that was found.
#[derive(Clone, Debug)]
pub struct Nvcc {
    program: PathBuf,
    version: String,
}

/// A `.cu` file that becomes PTX.
#[derive(Clone, Copy, Debug)]
pub struct PtxSource<'a> {
    pub path: &'a Path,
    /// Macros, as `NAME` or `NAME=VALUE`.
    pub defines: &'a [String],
    /// Where headers are, besides the folder of the file.
    pub includes: &'a [&'a Path],
    /// As `compute_80`.
    pub architecture: &'a str,
}

impl Nvcc {
    /// The nvcc that a build would use, or why there is none.
    pub fn find() -> Result<Self, String> {
        let program = toolkit::find().map_err(|_| "no nvcc found; scripts/cuda-toolkit.sh brings one".to_string())?;
        let output = Command::new(&program).arg("--version").output();
        let output = output.map_err(|error| format!("{} does not run: {error}", program.display()))?;
        let version = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok(Self { program, version })
    }

    /// Compiles a file to PTX, unless an earlier run did so from the same text.
    pub fn ptx(&self, source: PtxSource<'_>) -> Result<PathBuf> {
        let PtxSource { path, defines, includes, architecture } = source;
        let folders = [&[path.parent().context("a file in a folder")?], includes].concat();
        let mut inputs = vec![path.to_path_buf()];
        for folder in &folders {
            inputs.extend(files(folder, &["cu", "cuh", "h"])?);
        }
        let key = content_key(&inputs, (&self.program, &self.version, toolkit::FLAGS, defines, architecture))?;
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        cached(&format!("{stem}-{key:016x}.ptx"), |ptx| {
            let mut command = Command::new(&self.program);
            command.args(toolkit::FLAGS).arg("-ptx");
            command.arg(format!("-gencode=arch={architecture},code={architecture}"));
            for folder in &folders {
                command.arg("-I").arg(folder);
            }
            command.args(defines.iter().map(|define| format!("-D{define}"))).arg(path).arg("-o").arg(ptx);
            run(command)
        })
    }
}
