//! When registers hold something that is still needed. Compilers write PTX with a new register for every value, tens of
//! thousands of them; threads have far fewer values at a time.

use super::flat::{Flat, Flow, Part};
use super::syntax::Register;

/// The first and the last instruction at which a register must keep its value, and all between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub first: usize,
    pub last: usize,
}

/// The span of every register; none for those that no instruction names.
pub(super) fn spans(instructions: &[Flat], registers: usize) -> Vec<Option<Span>> {
    let blocks = blocks(instructions);
    let mut sets: Vec<Sets> = blocks.iter().map(|block| Sets::of(&instructions[block.clone()], registers)).collect();
    let block_at = |instruction: usize| blocks.partition_point(|block| block.end <= instruction);

    // Backwards, until nothing changes.
    let mut changed = true;
    while changed {
        changed = false;
        for (number, block) in blocks.iter().enumerate().rev() {
            let mut needed_behind = Bits::new(registers);
            for successor in successors(instructions, block.end - 1) {
                needed_behind.join(&sets[block_at(successor)].needed);
            }
            changed |= sets[number].pass(needed_behind);
        }
    }

    let mut spans: Vec<Option<Span>> = vec![None; registers];
    let mut extend = |register: Register, at: usize| {
        let span = spans[register].get_or_insert(Span { first: at, last: at });
        *span = Span { first: span.first.min(at), last: span.last.max(at) };
    };
    for (at, instruction) in instructions.iter().enumerate() {
        visit(instruction, |register, _| extend(register, at));
    }
    for (block, sets) in blocks.iter().zip(&sets) {
        sets.needed.each(|register| extend(register, block.start));
        sets.needed_behind.each(|register| extend(register, block.end - 1));
    }
    spans
}

/// Runs of instructions that are entered only at their start and left only at their end.
fn blocks(instructions: &[Flat]) -> Vec<std::ops::Range<usize>> {
    let mut starts = vec![false; instructions.len() + 1];
    starts[0] = true;
    for (at, instruction) in instructions.iter().enumerate() {
        if let Flow::Jump(target) = instruction.flow {
            starts[target as usize] = true;
        }
        starts[at + 1] |= instruction.flow != Flow::Next;
    }
    let mut ends = (1..=instructions.len()).filter(|&at| starts[at] || at == instructions.len());
    let starts = (0..instructions.len()).filter(|&at| starts[at]);
    starts.map_while(|start| ends.next().map(|end| start..end)).collect()
}

/// Where a thread may go behind an instruction.
fn successors(instructions: &[Flat], at: usize) -> impl Iterator<Item = usize> {
    let Flat { flow, guard, .. } = &instructions[at];
    let jump = match flow {
        Flow::Jump(target) => Some(*target as usize),
        _ => None,
    };
    let next = (*flow == Flow::Next || guard.is_some()).then_some(at + 1);
    jump.into_iter().chain(next).filter(move |&at| at < instructions.len())
}

/// Calls `seen(register, is_set)` for each register, those that are read first. A write that may not happen, because of
/// a guard, sets nothing and keeps what was there.
fn visit(instruction: &Flat, mut seen: impl FnMut(Register, bool)) {
    if let Some(guard) = instruction.guard {
        seen(guard.predicate, false);
    }
    for part in &instruction.parts {
        match part {
            Part::Read(register) => seen(*register, false),
            Part::Accumulate(registers) => registers.iter().for_each(|&register| seen(register, false)),
            _ => {}
        }
    }
    for part in &instruction.parts {
        if let Part::Write(register) = part {
            seen(*register, instruction.guard.is_none());
        }
    }
}

/// What a block does with registers.
struct Sets {
    /// Read before they are set.
    read: Bits,
    set: Bits,
    /// Needed at its start, as far as is known.
    needed: Bits,
    /// Needed behind its end.
    needed_behind: Bits,
}

impl Sets {
    fn of(instructions: &[Flat], registers: usize) -> Self {
        let (mut read, mut set) = (Bits::new(registers), Bits::new(registers));
        for instruction in instructions {
            visit(instruction, |register, is_set| match is_set {
                true => set.insert(register),
                false if !set.contains(register) => read.insert(register),
                false => {}
            });
        }
        Self { needed: read.clone(), read, set, needed_behind: Bits::new(registers) }
    }

    /// What is needed behind the block is needed in front of it unless it is set. Returns whether this is news.
    fn pass(&mut self, needed_behind: Bits) -> bool {
        let mut needed = needed_behind.clone();
        for (word, (set, read)) in needed.0.iter_mut().zip(self.set.0.iter().zip(&self.read.0)) {
            *word = *word & !set | read;
        }
        let news = needed != self.needed || needed_behind != self.needed_behind;
        (self.needed, self.needed_behind) = (needed, needed_behind);
        news
    }
}

/// A set of registers.
#[derive(Clone, PartialEq, Eq)]
struct Bits(Vec<u64>);

impl Bits {
    fn new(registers: usize) -> Self {
        Self(vec![0; registers.div_ceil(64)])
    }

    fn contains(&self, register: Register) -> bool {
        self.0[register / 64] >> (register % 64) & 1 != 0
    }

    fn insert(&mut self, register: Register) {
        self.0[register / 64] |= 1 << (register % 64);
    }

    fn join(&mut self, other: &Self) {
        for (word, other) in self.0.iter_mut().zip(&other.0) {
            *word |= other;
        }
    }

    fn each(&self, mut visit: impl FnMut(Register)) {
        for (number, &word) in self.0.iter().enumerate() {
            let mut rest = word;
            while rest != 0 {
                visit(number * 64 + rest.trailing_zeros() as usize);
                rest &= rest - 1;
            }
        }
    }
}
