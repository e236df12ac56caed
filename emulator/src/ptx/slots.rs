//! A place for every register and constant in the 32-bit slots of a thread.

use std::collections::HashMap;

use anyhow::{Result, ensure};

use super::flat::{Constant, Flat, Part};
use super::liveness::spans;
use super::syntax::{Register, Width};

/// Where everything lies.
#[derive(Debug)]
pub(super) struct Slots {
    /// By register; those that no instruction names have none.
    registers: Vec<Option<u32>>,
    constants: HashMap<Constant, u32>,
    /// All registers lie in front of this one.
    first_constant: u32,
    count: u32,
    /// Accumulators lie in front of this one, and nothing else does.
    accumulators: u32,
}

impl Slots {
    pub(super) fn assign(instructions: &[Flat], widths: &[Width]) -> Result<Self> {
        let mut slots = Self {
            registers: vec![None; widths.len()],
            constants: HashMap::new(),
            first_constant: 0,
            count: 0,
            accumulators: 0,
        };
        slots.place_accumulators(instructions)?;
        slots.place_registers(instructions, widths);
        slots.place_constants(instructions);
        Ok(slots)
    }

    /// Accumulators of one instruction lie side by side. They keep their slots for good: a wgmma writes them at its wait.
    fn place_accumulators(&mut self, instructions: &[Flat]) -> Result<()> {
        for instruction in instructions {
            for part in &instruction.parts {
                let Part::Accumulate(registers) = part else { continue };
                let first = self.registers[registers[0]];
                let place = |number: u32| first.map(|first| first + number);
                let together =
                    (0..).zip(registers).all(|(number, &register)| self.registers[register] == place(number));
                let line = instruction.line;
                ensure!(together, "line {line}: these registers are accumulators of another wgmma in another order");
                if first.is_none() {
                    for &register in registers {
                        self.registers[register] = Some(self.count);
                        self.count += 1;
                    }
                }
            }
        }
        self.accumulators = self.count;
        Ok(())
    }

    /// Each register in the first slots that are free for as long as it needs them.
    fn place_registers(&mut self, instructions: &[Flat], widths: &[Width]) {
        let spans = spans(instructions, widths.len());
        let open = |register: &Register| self.registers[*register].is_none();
        let spans = (0..widths.len()).filter(open).filter_map(|register| Some((register, spans[register]?)));
        let mut spans: Vec<_> = spans.collect();
        spans.sort_by_key(|(_, span)| span.first);
        // By slot behind the accumulators: the last instruction that needs what is there.
        let mut busy: Vec<Option<usize>> = Vec::new();
        for (register, span) in spans {
            let width = slots_of(widths[register]);
            let is_free = |slot: &Option<usize>| slot.is_none_or(|last| last < span.first);
            let fits = |&start: &usize| busy[start..busy.len().min(start + width)].iter().all(is_free);
            let start = (0..=busy.len()).find(fits).unwrap_or(busy.len());
            busy.resize(busy.len().max(start + width), None);
            busy[start..start + width].fill(Some(span.last));
            self.registers[register] = Some(self.accumulators + start as u32);
        }
        self.count += busy.len() as u32;
        self.first_constant = self.count;
    }

    fn place_constants(&mut self, instructions: &[Flat]) {
        for part in instructions.iter().flat_map(|instruction| &instruction.parts) {
            let Part::Constant(constant) = part else { continue };
            let width = match constant {
                Constant::Wide(_) | Constant::Parameter(_) => 2,
                _ => 1,
            };
            let count = &mut self.count;
            self.constants.entry(*constant).or_insert_with(|| {
                *count += width;
                *count - width
            });
        }
    }

    pub(super) fn count(&self) -> u32 {
        self.count
    }

    /// The first slot of a register that some instruction names.
    pub(super) fn register(&self, register: Register) -> u32 {
        self.registers[register].unwrap_or_default()
    }

    /// The first slot of a constant that some instruction names.
    pub(super) fn constant(&self, constant: Constant) -> u32 {
        self.constants.get(&constant).copied().unwrap_or_default()
    }

    pub(super) fn constants(&self) -> impl Iterator<Item = (Constant, u32)> {
        self.constants.iter().map(|(&constant, &slot)| (constant, slot))
    }

    /// Whether an accumulator lies in a slot.
    pub(super) fn is_accumulator(&self, slot: u32) -> bool {
        slot < self.accumulators
    }
}

fn slots_of(width: Width) -> usize {
    if width == Width::Bits64 { 2 } else { 1 }
}
