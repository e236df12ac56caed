//! From PTX text to what the interpreter in `ptx/` runs.
//!
//! `lexer` and `parser` read the text into `syntax`; `opcodes` is what the interpreter can do; `flat` finds the form of
//! each instruction, `liveness` and `slots` give its registers a place, and `program` is the result.

mod flat;
mod lexer;
mod liveness;
mod opcodes;
mod parser;
mod program;
mod slots;
mod syntax;

use std::path::Path;

use anyhow::{Context, Result};

pub(crate) use opcodes::Opcodes;
pub(crate) use program::{Program, RawProgram};

/// The kernels of a PTX file. An instruction that the interpreter does not know is an error that names the line.
pub(crate) fn translate(text: &str, opcodes: &Opcodes, path: &Path) -> Result<Vec<Program>> {
    let module = parser::parse(text)?;
    let program = |kernel| Program::new(kernel, opcodes, path).with_context(|| format!("kernel `{}`", kernel.name));
    module.kernels.iter().map(program).collect()
}
