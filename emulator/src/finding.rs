//! What a launch found.

use std::ffi::CStr;
use std::fmt;
use std::os::raw::c_char;
use std::path::Path;
use std::process::Command;

/// The kinds of mistakes that the engine finds, numbered as in `engine/finding.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FindingKind {
    /// An access outside its buffer, shared memory or stack, or a write to a read-only buffer.
    OutOfBounds,
    /// A read of something that nobody has written.
    Uninitialised,
    /// Two threads of a block, at least one writing, with nothing that orders them.
    Race,
    /// The same between two blocks.
    Blocks,
    /// An access to data that are still under way, or a missing proxy fence.
    Asynchronous,
    /// Lanes that do not meet at the collective they should meet at.
    Divergence,
    /// Nobody can go on.
    Deadlock,
    /// A primitive used against its rules.
    Misuse,
    /// The launch itself is wrong: unknown kernel, size of the arguments.
    Setup,
}

impl FindingKind {
    fn from_number(number: u32) -> Option<Self> {
        use FindingKind::*;
        let kinds = [OutOfBounds, Uninitialised, Race, Blocks, Asynchronous, Divergence, Deadlock, Misuse, Setup];
        kinds.get((number as usize).checked_sub(1)?).copied()
    }
}

/// The first mistake of a launch.
#[derive(Debug)]
pub struct Finding {
    pub kind: FindingKind,
    pub message: String,
    /// Block index and number of the thread in its block.
    pub thread: Option<([u32; 3], u32)>,
    /// `file:line` in the kernel's source.
    pub place: Option<String>,
}

impl Finding {
    /// There is nothing of this name to launch.
    pub(super) fn no_kernel(name: &str) -> Self {
        Self { kind: FindingKind::Setup, message: format!("there is no kernel `{name}`"), thread: None, place: None }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.kind, self.message)?;
        if let Some(([x, y, z], thread)) = self.thread {
            write!(f, " [block {x},{y},{z}, thread {thread}]")?;
        }
        match &self.place {
            Some(place) => write!(f, " at {place}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Finding {}

/// `emulator::Finding`.
#[repr(C)]
pub(super) struct RawFinding {
    kind: u32,
    block: [u32; 3],
    thread: u32,
    line: u32,
    code_offset: u64,
    file: [c_char; 256],
    message: [c_char; 512],
}

const NO_THREAD: u32 = u32::MAX;

impl RawFinding {
    pub(crate) fn new() -> Self {
        let (file, message) = ([0; 256], [0; 512]);
        Self { kind: 0, block: [0; 3], thread: NO_THREAD, line: 0, code_offset: 0, file, message }
    }

    /// The finding, if there is one, of a kernel out of `library`.
    pub(crate) fn decode(&self, library: &Path) -> Option<Finding> {
        let kind = FindingKind::from_number(self.kind)?;
        let place = match (self.line, self.code_offset) {
            (0, 0) => None,
            (0, offset) => source_line(library, offset),
            (line, _) => Some(format!("{}:{line}", text(&self.file))),
        };
        let thread = (self.thread != NO_THREAD).then_some((self.block, self.thread));
        Some(Finding { kind, message: text(&self.message), thread, place })
    }
}

fn text(characters: &[c_char]) -> String {
    let bytes: Vec<u8> = characters.iter().flat_map(|c| c.to_ne_bytes()).collect();
    CStr::from_bytes_until_nul(&bytes).map_or_else(|_| String::new(), |text| text.to_string_lossy().into_owned())
}

/// The line whose code returns to `offset`, or nothing where there are no binutils.
fn source_line(library: &Path, offset: u64) -> Option<String> {
    let output = Command::new("addr2line").arg("-e").arg(library).arg(format!("{:#x}", offset - 1)).output().ok()?;
    let line = String::from_utf8_lossy(&output.stdout);
    // Behind a space may follow a discriminator.
    let line = line.split_whitespace().next()?;
    (!line.starts_with('?')).then(|| line.to_string())
}
