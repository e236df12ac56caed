//! Modules and their functions.

use std::env;
use std::ffi::CStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use emulator::{Launch, Programs};

use crate::candle;
use crate::failure::{Failure, Outcome};
use crate::interpreter::interpreter;
use crate::step::Work;

/// Names the folder with the PTX of kernels that come as machine code, which cannot run: `NAME.ptx`.
const PTX_FOLDER: &str = "CUDA_STAND_IN_PTX";

/// Dynamic shared memory that a block may have without being asked for.
const SHARED_BYTES: u32 = 48 << 10;

/// Loaded code.
#[derive(Debug)]
pub(crate) struct Module {
    pub device: usize,
    programs: Programs,
}

/// A kernel of a module.
#[derive(Clone, Debug)]
pub(crate) struct Function {
    pub device: usize,
    name: String,
    kernel: Kernel,
    /// Where parameters lie, and how long they are.
    pub parameters: Vec<(usize, usize)>,
    pub shared_bytes: u32,
}

#[derive(Clone, Debug)]
enum Kernel {
    Ptx(Programs),
    Candle(candle::Kernel),
}

impl Module {
    /// Loads an image: the text of PTX, or machine code.
    ///
    /// # Safety
    /// It ends with a zero, or begins as an ELF file and is one.
    pub(crate) unsafe fn load(device: usize, image: *const u8) -> Outcome<Self> {
        // SAFETY: the caller vouches for an image, which has at least as many bytes.
        let text = match unsafe { std::slice::from_raw_parts(image, 4) } {
            // SAFETY: likewise.
            b"\x7fELF" => unsafe { source_of(image) }?,
            // SAFETY: text ends with a zero.
            _ => unsafe { CStr::from_ptr(image.cast()) }.to_string_lossy().into_owned(),
        };
        let name = text.lines().find_map(|line| line.split_once(".entry ")).map_or("none", |(_, name)| name);
        let name = PathBuf::from(name.trim_end_matches('(')).with_extension("ptx");
        let programs = interpreter()?.read(&text, &name);
        let programs = programs.inspect_err(|error| eprintln!("PTX that cannot run: {error:#}"));
        Ok(Self { device, programs: programs.map_err(|_| Failure::INVALID_PTX)? })
    }

    /// A function by its name. candle's kernels are there, whatever the module is.
    pub(crate) fn function(&self, name: &str) -> Outcome<Function> {
        let (kernel, parameters) = match (self.programs.parameters(name), candle::Kernel::named(name)) {
            (_, Some(kernel)) => (Kernel::Candle(kernel), kernel.parameters()),
            (Some(parameters), None) => (Kernel::Ptx(self.programs.clone()), parameters),
            (None, None) => {
                eprintln!("there is no kernel `{name}`");
                return Err(Failure::NOT_FOUND);
            }
        };
        Ok(Function { device: self.device, name: name.to_string(), kernel, parameters, shared_bytes: SHARED_BYTES })
    }
}

/// The PTX from which an image of machine code was made.
///
/// # Safety
/// The image is an ELF file.
unsafe fn source_of(image: *const u8) -> Outcome<String> {
    // SAFETY: the table of sections is at the end of what an assembler writes; its place and size are in the header.
    let image = unsafe {
        let number = |offset: usize, bytes: usize| {
            let bytes = std::slice::from_raw_parts(image.add(offset), bytes);
            bytes.iter().rev().fold(0usize, |number, &byte| number << 8 | usize::from(byte))
        };
        let (sections, programs) = (number(0x28, 8) + number(0x3a, 2) * number(0x3c, 2), number(0x20, 8));
        std::slice::from_raw_parts(image, sections.max(programs + number(0x36, 2) * number(0x38, 2)))
    };
    let marker = b".text.";
    let start = image.windows(marker.len()).position(|window| window == marker).ok_or(Failure::INVALID_PTX)?;
    let name = image[start + marker.len()..].split(|&byte| byte == 0).next().unwrap_or_default();
    let name = String::from_utf8_lossy(name);
    let folder = env::var_os(PTX_FOLDER);
    let file = Path::new(folder.as_deref().unwrap_or_default()).join(&*name).with_extension("ptx");
    fs::read_to_string(&file).map_err(|error| {
        eprintln!("machine code cannot run, and its PTX, {} ({PTX_FOLDER}), cannot be read: {error}", file.display());
        Failure::NO_BINARY_FOR_GPU
    })
}

impl Function {
    /// A launch of the kernel; `order` is that of its threads and blocks.
    pub(crate) fn work(
        &self,
        grid: [u32; 3],
        block: [u32; 3],
        shared_bytes: u32,
        order: u64,
        arguments: Vec<u8>,
    ) -> Work {
        let name = self.name.clone();
        match self.kernel.clone() {
            Kernel::Ptx(programs) => {
                let launch = Launch { grid, block, shared_bytes: shared_bytes as usize, order };
                Arc::new(move |memory| memory.launch(&programs, &name, launch, &arguments))
            }
            Kernel::Candle(kernel) => {
                let rows = grid.iter().map(|&extent| extent as usize).product();
                Arc::new(move |memory| kernel.run(memory, rows, &arguments))
            }
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn is_candles(&self) -> bool {
        matches!(self.kernel, Kernel::Candle(_))
    }
}
