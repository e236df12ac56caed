//! Instructions with their operands one after the other, as the interpreter reads them, slots still open.

use anyhow::{Context, Result, bail, ensure};

use super::opcodes::{Description, Form, Opcodes};
use super::syntax::{Guard, Instruction, Operand, Register, SpecialRegister, Width};

/// An instruction of a form that the interpreter knows.
#[derive(Debug)]
pub(super) struct Flat {
    pub opcode: u32,
    pub line: u32,
    pub guard: Option<Guard>,
    pub parts: Vec<Part>,
    pub flow: Flow,
}

/// Where a thread goes behind an instruction that it executes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    Next,
    Jump(u32),
    Leave,
}

/// A word among the operands of an instruction.
#[derive(Clone, Debug)]
pub(super) enum Part {
    Read(Register),
    Write(Register),
    /// Side by side.
    Accumulate(Vec<Register>),
    Constant(Constant),
    /// What it is, and no slot.
    Word(u32),
}

/// A source that is no register of the kernel; each has slots of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Constant {
    Narrow(u32),
    Wide(u64),
    Special(SpecialRegister),
    SharedMemory,
    Parameter(u32),
}

/// The instruction in the form that fits its operands.
pub(super) fn flatten(instruction: &Instruction, opcodes: &Opcodes, widths: &[Width]) -> Result<Flat> {
    let Instruction { line, guard, opcode, operands } = instruction;
    let forms = opcodes.forms(opcode).with_context(|| format!("line {line}: `{opcode}` is not interpreted"))?;
    let fit = forms.iter().find_map(|form| Some((form, parts(form, operands, widths).ok()?)));
    let Some((form, parts)) = fit else {
        let reasons: Vec<_> = forms.iter().filter_map(|form| parts(form, operands, widths).err()).collect();
        let reasons: Vec<_> = reasons.iter().map(|reason| format!("{reason:#}")).collect();
        bail!("line {line}: no form of `{opcode}` has these operands: {}", reasons.join("; or "));
    };
    let jump = operands.iter().find_map(|operand| match operand {
        Operand::Label(target) => Some(Flow::Jump(*target)),
        _ => None,
    });
    let flow = if opcode == "ret" { Flow::Leave } else { jump.unwrap_or(Flow::Next) };
    Ok(Flat { opcode: form.number, line: *line, guard: *guard, parts, flow })
}

fn parts(form: &Form, operands: &[Operand], widths: &[Width]) -> Result<Vec<Part>> {
    let (expected, found) = (form.operands.len(), operands.len());
    ensure!(expected == found, "expected {expected} operands, found {found}");
    let mut parts = Vec::new();
    for (description, operand) in form.operands.iter().zip(operands) {
        append(&mut parts, *description, operand, widths)
            .with_context(|| format!("expected {description:?}, found {operand:?}"))?;
    }
    Ok(parts)
}

fn append(parts: &mut Vec<Part>, description: Description, operand: &Operand, widths: &[Width]) -> Result<()> {
    match (description, operand) {
        (Description::Write(width, 1), operand) => parts.push(destination(operand, width, widths)?),
        (Description::Read(width, 1), operand) => parts.push(source(operand, width, widths)?),
        (Description::Write(width, count), Operand::Vector(elements)) if elements.len() == count => {
            for element in elements {
                parts.push(destination(element, width, widths)?);
            }
        }
        (Description::Read(width, count), Operand::Vector(elements)) if elements.len() == count => {
            for element in elements {
                parts.push(source(element, width, widths)?);
            }
        }
        (Description::WriteWithPredicate(width), Operand::Pair(value, predicate)) => {
            parts.push(destination(&Operand::Register(*value), width, widths)?);
            parts.push(destination(&Operand::Register(*predicate), Width::Predicate, widths)?);
        }
        (Description::Accumulate(count), Operand::Vector(elements)) if elements.len() == count => {
            let registers = elements.iter().map(|element| match element {
                Operand::Register(register) if widths[*register] == Width::Bits32 => Ok(*register),
                other => bail!("{other:?} is no register of 32 bits"),
            });
            parts.push(Part::Accumulate(registers.collect::<Result<_>>()?));
        }
        (Description::Address(width), Operand::Address(base, offset)) => {
            parts.push(source(base, width, widths)?);
            parts.push(Part::Word(*offset as u32));
        }
        (Description::Tensor(count), Operand::Tensor(base, offset, coordinates)) if coordinates.len() == count => {
            parts.push(source(base, Width::Bits64, widths)?);
            parts.push(Part::Word(*offset as u32));
            for coordinate in coordinates {
                parts.push(source(coordinate, Width::Bits32, widths)?);
            }
        }
        (Description::Literal, Operand::Integer(number)) => parts.push(Part::Word(u32::try_from(*number)?)),
        (Description::Label, Operand::Label(instruction)) => parts.push(Part::Word(*instruction)),
        (Description::Nothing, Operand::Nothing) => {}
        _ => bail!("something else"),
    }
    Ok(())
}

fn destination(operand: &Operand, width: Width, widths: &[Width]) -> Result<Part> {
    match operand {
        Operand::Register(register) if widths[*register] == width => Ok(Part::Write(*register)),
        _ => bail!("no register of that width"),
    }
}

fn source(operand: &Operand, width: Width, widths: &[Width]) -> Result<Part> {
    let narrow = matches!(width, Width::Bits16 | Width::Bits32);
    let constant = match *operand {
        Operand::Register(register) if widths[register] == width => return Ok(Part::Read(register)),
        Operand::Integer(number) if width == Width::Bits64 => Constant::Wide(number as u64),
        Operand::Integer(number) if narrow => Constant::Narrow(number as u32),
        // As in C, whatever is not 0 is true.
        Operand::Integer(number) if width == Width::Predicate => Constant::Narrow((number != 0).into()),
        Operand::Float(bits) if width == Width::Bits32 => Constant::Narrow(bits),
        Operand::Special(register) if width == Width::Bits32 => Constant::Special(register),
        Operand::SharedMemory if width == Width::Bits32 => Constant::SharedMemory,
        Operand::Parameter(offset) if width == Width::Bits64 => Constant::Parameter(offset),
        _ => bail!("no source of that width"),
    };
    Ok(Part::Constant(constant))
}
