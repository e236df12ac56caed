//! Kernels in PTX, ready to run.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};

use crate::compile::Compiler;
use crate::finding::{Finding, RawFinding};
use crate::interface::{Interface, LaunchProgram, RawDevice, Shape};
use crate::launch::Launch;
use crate::ptx::{self, Opcodes, Program};

/// What runs PTX.
#[derive(Clone, Debug)]
pub struct Interpreter {
    pub(crate) interface: Arc<Interface>,
    pub(crate) path: PathBuf,
    opcodes: Arc<Opcodes>,
    launch: LaunchProgram,
}

/// The kernels of a text.
#[derive(Clone, Debug)]
pub struct Programs {
    by_name: Arc<HashMap<String, Program>>,
    /// Keeps the function that runs them.
    interpreter: Interpreter,
}

impl Interpreter {
    /// Compiles the interpreter, unless it is in the cache.
    ///
    /// # Errors
    /// It cannot be compiled or loaded.
    pub fn new(compiler: &Compiler) -> Result<Self> {
        let path = compiler.build_interpreter()?;
        let interface = Interface::load(&path)?;
        let (opcodes, launch) = (Arc::new(interface.opcodes()?), interface.launch_program()?);
        Ok(Self { interface: Arc::new(interface), path, opcodes, launch })
    }

    /// Reads the kernels of a text; findings name `path`.
    ///
    /// # Errors
    /// There is something in it that the interpreter does not know.
    pub fn read(&self, text: &str, path: &Path) -> Result<Programs> {
        let programs = ptx::translate(text, &self.opcodes, path).with_context(|| path.display().to_string())?;
        let by_name = programs.into_iter().map(|program| (program.name.clone(), program)).collect();
        Ok(Programs { by_name: Arc::new(by_name), interpreter: self.clone() })
    }
}

impl Programs {
    /// Where each parameter of a kernel lies among the bytes of all, and how long it is; nothing if there is no such kernel.
    pub fn parameters(&self, kernel: &str) -> Option<Vec<(usize, usize)>> {
        let parameters = &self.by_name.get(kernel)?.parameters;
        Some(parameters.iter().map(|parameter| (parameter.offset as usize, parameter.bytes as usize)).collect())
    }

    /// Runs a kernel on a device of the same engine.
    ///
    /// # Safety
    /// The device is alive and nobody else uses it, or refers to memory of it.
    pub(crate) unsafe fn launch(
        &self,
        device: *mut RawDevice,
        kernel: &str,
        launch: Launch,
        arguments: &[u8],
    ) -> Result<(), Finding> {
        let Some(program) = self.by_name.get(kernel) else { return Err(Finding::no_kernel(kernel)) };
        let Launch { grid, block, shared_bytes, order } = launch;
        let shape = Shape { grid, block, shared_bytes: shared_bytes as u64, order };
        let mut found = RawFinding::new();
        // SAFETY: all pointers are valid for the call, and the program's slots and opcodes are those that the interpreter
        // was asked for.
        unsafe {
            let (start, bytes) = (arguments.as_ptr().cast(), arguments.len());
            (self.interpreter.launch)(device, &program.raw(), &shape, start, bytes, &mut found);
        }
        found.decode(&self.interpreter.path).map_or(Ok(()), Err)
    }
}
