//! What the interpreter can execute, as it tells itself: `ptx::Opcode` in `ptx/machine.h` explains the notation.

use std::collections::HashMap;

use anyhow::{Context, Result, bail};

use super::syntax::Width;

/// The opcodes by name; several forms of one differ in their operands.
#[derive(Debug, Default)]
pub(crate) struct Opcodes {
    forms: HashMap<String, Vec<Form>>,
}

/// A row of the interpreter's table.
#[derive(Debug)]
pub(crate) struct Form {
    pub number: u32,
    pub operands: Vec<Description>,
}

/// What must stand at the place of an operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Description {
    /// Destinations, in braces if there is more than one.
    Write(Width, usize),
    /// Sources, likewise.
    Read(Width, usize),
    /// A destination with a predicate behind.
    WriteWithPredicate(Width),
    /// So many registers side by side, read and written.
    Accumulate(usize),
    /// An address with a base of this width.
    Address(Width),
    /// A tensor map and so many coordinates.
    Tensor(usize),
    /// A number that is part of the instruction.
    Literal,
    Label,
    Nothing,
}

impl Opcodes {
    /// Adds the row of this number.
    pub(crate) fn add(&mut self, number: u32, name: &str, operands: &str) -> Result<()> {
        let operands = operands.split_whitespace().map(describe).collect::<Result<Vec<_>>>();
        let operands = operands.with_context(|| format!("the interpreter's description of `{name}`"))?;
        self.forms.entry(name.to_string()).or_default().push(Form { number, operands });
        Ok(())
    }

    /// All forms of an opcode.
    pub(crate) fn forms(&self, name: &str) -> Option<&[Form]> {
        self.forms.get(name).map(Vec::as_slice)
    }
}

fn describe(text: &str) -> Result<Description> {
    Ok(match text {
        "#" => Description::Literal,
        "@" => Description::Label,
        "_" => Description::Nothing,
        _ => {
            if let Some(inside) = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
                return Ok(match inside.split_once(',') {
                    Some((_, coordinates)) => Description::Tensor(vector(coordinates)?.1),
                    None => Description::Address(width(inside)?),
                });
            }
            if let Some(text) = text.strip_prefix('+') {
                return Ok(Description::Accumulate(vector(text)?.1));
            }
            let Some(text) = text.strip_prefix('=') else {
                let (width, count) = vector(text)?;
                return Ok(Description::Read(width, count));
            };
            match text.strip_suffix("|p") {
                Some(text) => Description::WriteWithPredicate(width(text)?),
                None => vector(text).map(|(width, count)| Description::Write(width, count))?,
            }
        }
    })
}

/// `32*4`, or `32` for one.
fn vector(text: &str) -> Result<(Width, usize)> {
    match text.split_once('*') {
        Some((element, count)) => Ok((width(element)?, count.parse()?)),
        None => Ok((width(text)?, 1)),
    }
}

fn width(text: &str) -> Result<Width> {
    Ok(match text {
        "p" => Width::Predicate,
        "16" => Width::Bits16,
        "32" => Width::Bits32,
        "64" => Width::Bits64,
        _ => bail!("`{text}` is no width"),
    })
}
