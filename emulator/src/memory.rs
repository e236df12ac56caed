//! The memory of a device as a driver has it: buffers come and go, and kernels of many files run on it.

use std::ffi::{CString, c_void};
use std::ptr::{self, NonNull};

use crate::finding::{Finding, RawFinding};
use crate::interface::RawDevice;
use crate::interpreter::{Interpreter, Programs};
use crate::launch::Launch;

/// Memory that kernels in PTX run on. Addresses are device addresses as numbers; what was freed is never given out again.
#[derive(Debug)]
pub struct DeviceMemory {
    raw: NonNull<RawDevice>,
    interpreter: Interpreter,
}

// SAFETY: the engine keeps nothing of a device in threads.
unsafe impl Send for DeviceMemory {}

impl Drop for DeviceMemory {
    fn drop(&mut self) {
        // SAFETY: `raw` came from `device_new`, and nobody else has it.
        unsafe { (self.interpreter.interface.device_free)(self.raw.as_ptr()) }
    }
}

impl DeviceMemory {
    /// Memory without buffers.
    pub fn new(interpreter: &Interpreter) -> Self {
        // SAFETY: takes nothing and returns a device of our own.
        let raw = unsafe { (interpreter.interface.device_new)() };
        let raw = NonNull::new(raw).expect("`new` does not return null");
        Self { raw, interpreter: interpreter.clone() }
    }

    /// A buffer that holds NaN and must be written before it is read; nothing if the address space is used up.
    pub fn allocate(&mut self, name: &str, bytes: usize) -> Option<u64> {
        let name = CString::new(name).ok()?;
        // SAFETY: the name is copied, and there is no initial content.
        let start = unsafe {
            let allocate = self.interpreter.interface.allocate;
            allocate(self.raw.as_ptr(), name.as_ptr(), bytes, ptr::null(), true)
        };
        (!start.is_null()).then_some(start as u64)
    }

    /// Frees the buffer that starts at an address; whether there is one.
    pub fn free(&mut self, address: u64) -> bool {
        // SAFETY: the engine looks the address up. No reference into a buffer exists: reads and writes copy.
        unsafe { (self.interpreter.interface.release)(self.raw.as_ptr(), address as *mut c_void) }
    }

    /// Copies from the host into a buffer.
    ///
    /// # Errors
    /// The place is not inside of a buffer.
    pub fn write(&mut self, address: u64, bytes: &[u8]) -> Result<(), Finding> {
        self.check(address, bytes.len(), true)?;
        // SAFETY: the place was checked, and the host's bytes lie elsewhere.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), address as *mut u8, bytes.len()) };
        Ok(())
    }

    /// Copies from a buffer to the host.
    ///
    /// # Errors
    /// The place is not inside of a buffer, or nobody has written it.
    pub fn read(&self, address: u64, bytes: usize) -> Result<Vec<u8>, Finding> {
        self.check(address, bytes, false)?;
        let mut copy = vec![0; bytes];
        // SAFETY: the place was checked, and the copy lies elsewhere.
        unsafe { ptr::copy_nonoverlapping(address as *const u8, copy.as_mut_ptr(), bytes) };
        Ok(copy)
    }

    fn check(&self, address: u64, bytes: usize, write: bool) -> Result<(), Finding> {
        if bytes == 0 {
            return Ok(());
        }
        let mut found = RawFinding::new();
        // SAFETY: the engine compares the address with its buffers and touches nothing.
        unsafe {
            let check = self.interpreter.interface.check;
            check(self.raw.as_ptr(), address as *const c_void, bytes, write, &mut found);
        }
        found.decode(&self.interpreter.path).map_or(Ok(()), Err)
    }

    /// Runs a kernel over the whole grid; the first finding ends it.
    ///
    /// # Errors
    /// What was found.
    pub fn launch(
        &mut self,
        programs: &Programs,
        kernel: &str,
        launch: Launch,
        arguments: &[u8],
    ) -> Result<(), Finding> {
        // SAFETY: the device is ours, `&mut` keeps others away, and no reference into a buffer exists.
        unsafe { programs.launch(self.raw.as_ptr(), kernel, launch, arguments) }
    }
}
