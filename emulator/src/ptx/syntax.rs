//! What PTX text says, before anything is known about its instructions.

/// A file.
#[derive(Debug)]
pub(super) struct Module {
    pub kernels: Vec<Kernel>,
}

/// An `.entry`.
#[derive(Debug)]
pub(crate) struct Kernel {
    pub name: String,
    pub parameters: Vec<Parameter>,
    /// `.maxntid`: the most threads of a block.
    pub most_threads: Option<u32>,
    /// Every declared register, in any scope.
    pub registers: Vec<Width>,
    pub instructions: Vec<Instruction>,
}

/// A parameter of a kernel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parameter {
    /// Where it lies among the bytes of all parameters.
    pub offset: u32,
    pub bytes: u32,
}

/// The width of a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Width {
    Predicate,
    Bits16,
    Bits32,
    Bits64,
}

/// A number in [`Kernel::registers`].
pub(super) type Register = usize;

/// One instruction.
#[derive(Debug)]
pub(crate) struct Instruction {
    pub line: u32,
    pub guard: Option<Guard>,
    /// With all modifiers.
    pub opcode: String,
    pub operands: Vec<Operand>,
}

/// `@p` or `@!p`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Guard {
    pub predicate: Register,
    pub negated: bool,
}

/// An operand.
#[derive(Clone, Debug)]
pub(crate) enum Operand {
    Register(Register),
    /// A register that the hardware sets, as `%tid.x`.
    Special(SpecialRegister),
    Integer(i64),
    /// The bits of an f32.
    Float(u32),
    /// Where dynamic shared memory begins.
    SharedMemory,
    /// Where the parameter at this offset lies.
    Parameter(u32),
    /// `{a, b}`
    Vector(Vec<Self>),
    /// `a|b`
    Pair(Register, Register),
    /// `[base+offset]`
    Address(Box<Self>, i32),
    /// `[map, {coordinates}]`
    Tensor(Box<Self>, i32, Vec<Self>),
    /// The number of the instruction behind a label.
    Label(u32),
    /// `_`
    Nothing,
}

/// The registers that the hardware sets, numbered as `ptx::Special::Kind` of the interpreter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub(crate) enum SpecialRegister {
    ThreadX,
    ThreadY,
    ThreadZ,
    BlockSizeX,
    BlockSizeY,
    BlockSizeZ,
    BlockX,
    BlockY,
    BlockZ,
    GridX,
    GridY,
    GridZ,
    Lane,
}

impl SpecialRegister {
    /// By its name in PTX.
    pub(crate) fn named(name: &str) -> Option<Self> {
        use SpecialRegister::*;
        Some(match name {
            "%tid.x" => ThreadX,
            "%tid.y" => ThreadY,
            "%tid.z" => ThreadZ,
            "%ntid.x" => BlockSizeX,
            "%ntid.y" => BlockSizeY,
            "%ntid.z" => BlockSizeZ,
            "%ctaid.x" => BlockX,
            "%ctaid.y" => BlockY,
            "%ctaid.z" => BlockZ,
            "%nctaid.x" => GridX,
            "%nctaid.y" => GridY,
            "%nctaid.z" => GridZ,
            "%laneid" => Lane,
            _ => return None,
        })
    }
}
