//! A kernel as the interpreter reads it: the layouts of `ptx/program.h`.

use std::ffi::{CString, c_char};
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::flat::{Constant, Flat, Flow, Part, flatten};
use super::opcodes::Opcodes;
use super::slots::Slots;
use super::syntax::{Kernel, Parameter};

/// More would not fit onto the stack of a thread (`STACK_BYTES` in `engine/launch.h`).
const MOST_SLOTS: u32 = 32 << 10;

/// `ptx::Special::Kind`, behind those that are registers in PTX.
const SHARED_MEMORY: u32 = 13;
const PARAMETERS: u32 = 14;

/// A kernel that can run.
#[derive(Debug)]
pub(crate) struct Program {
    pub name: String,
    pub parameters: Vec<Parameter>,
    file: CString,
    instructions: Vec<RawInstruction>,
    operands: Vec<u32>,
    watched: Vec<u32>,
    initial: Vec<u32>,
    specials: Vec<RawSpecial>,
    parameter_bytes: u32,
    most_threads: u32,
}

#[repr(C)]
#[derive(Debug)]
struct RawInstruction {
    opcode: u32,
    operands: u32,
    guard: i32,
    negated: u32,
    line: u32,
    watched: u32,
    watched_count: u32,
}

#[repr(C)]
#[derive(Debug)]
struct RawSpecial {
    slot: u32,
    kind: u32,
}

/// Borrows from a [`Program`].
#[repr(C)]
pub(crate) struct RawProgram {
    file: *const c_char,
    instructions: *const RawInstruction,
    operands: *const u32,
    watched: *const u32,
    initial: *const u32,
    specials: *const RawSpecial,
    slots: u32,
    special_count: u32,
    parameter_bytes: u32,
    most_threads: u32,
}

impl Program {
    /// `path` is what findings name.
    pub(crate) fn new(kernel: &Kernel, opcodes: &Opcodes, path: &Path) -> Result<Self> {
        let flat = kernel.instructions.iter().map(|instruction| flatten(instruction, opcodes, &kernel.registers));
        let flat = flat.collect::<Result<Vec<_>>>()?;
        let last = flat.last().context("a kernel without instructions")?;
        ensure!(
            last.flow != Flow::Next && last.guard.is_none(),
            "line {}: the kernel goes on behind its end",
            last.line
        );
        let slots = Slots::assign(&flat, &kernel.registers)?;
        ensure!(slots.count() <= MOST_SLOTS, "{} slots for registers, at most {MOST_SLOTS} fit", slots.count());
        let mut program = Self {
            name: kernel.name.clone(),
            parameters: kernel.parameters.clone(),
            file: CString::new(path.to_string_lossy().as_bytes())?,
            instructions: Vec::with_capacity(flat.len()),
            operands: Vec::new(),
            watched: Vec::new(),
            // Registers that nobody has written hold NaN.
            initial: vec![u32::MAX; slots.count() as usize],
            specials: Vec::new(),
            parameter_bytes: kernel.parameters.iter().map(|p| p.offset + p.bytes).max().unwrap_or_default(),
            most_threads: kernel.most_threads.unwrap_or_default(),
        };
        for instruction in &flat {
            program.push(instruction, &slots)?;
        }
        for (constant, slot) in slots.constants() {
            program.set_initial(constant, slot);
        }
        Ok(program)
    }

    fn push(&mut self, instruction: &Flat, slots: &Slots) -> Result<()> {
        let (operands, watched) = (self.operands.len() as u32, self.watched.len());
        for part in &instruction.parts {
            self.operands.push(match part {
                Part::Read(register) | Part::Write(register) => {
                    let slot = slots.register(*register);
                    if slots.is_accumulator(slot) {
                        self.watched.push(slot);
                    }
                    slot
                }
                Part::Accumulate(registers) => slots.register(registers[0]),
                Part::Constant(constant) => slots.constant(*constant),
                Part::Word(word) => *word,
            });
        }
        let guard = instruction.guard.map(|guard| i32::try_from(slots.register(guard.predicate))).transpose()?;
        self.instructions.push(RawInstruction {
            opcode: instruction.opcode,
            operands,
            guard: guard.unwrap_or(-1),
            negated: instruction.guard.is_some_and(|guard| guard.negated).into(),
            line: instruction.line,
            watched: watched as u32,
            watched_count: (self.watched.len() - watched) as u32,
        });
        Ok(())
    }

    fn set_initial(&mut self, constant: Constant, slot: u32) {
        let (value, special) = match constant {
            Constant::Narrow(value) => (value.into(), None),
            Constant::Wide(value) => (value, None),
            Constant::Special(register) => (0, Some(register as u32)),
            Constant::SharedMemory => (0, Some(SHARED_MEMORY)),
            Constant::Parameter(offset) => (offset.into(), Some(PARAMETERS)),
        };
        self.specials.extend(special.map(|kind| RawSpecial { slot, kind }));
        self.initial[slot as usize] = value as u32;
        if matches!(constant, Constant::Wide(_) | Constant::Parameter(_)) {
            self.initial[slot as usize + 1] = (value >> 32) as u32;
        }
    }

    /// For a launch.
    pub(crate) fn raw(&self) -> RawProgram {
        RawProgram {
            file: self.file.as_ptr(),
            instructions: self.instructions.as_ptr(),
            operands: self.operands.as_ptr(),
            watched: self.watched.as_ptr(),
            initial: self.initial.as_ptr(),
            specials: self.specials.as_ptr(),
            slots: self.initial.len() as u32,
            special_count: self.specials.len() as u32,
            parameter_bytes: self.parameter_bytes,
            most_threads: self.most_threads,
        }
    }
}
