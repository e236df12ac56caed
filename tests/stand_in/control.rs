//! What the library that stands for the driver tells and takes (`emulator/stand-in/src/control.rs`).

use std::ffi::{CString, c_char};

use anyhow::{Context, Result};
use libloading::os::unix::Library;

/// The devices that it has.
pub const AMPERE: usize = 0;
pub const HOPPER: usize = 1;

/// The library, which this process was linked to.
pub struct StandIn {
    library: Library,
}

/// Calls of a few functions, by name, with their count.
pub type Counts = Vec<(&'static str, u64)>;

impl StandIn {
    /// The one of this process, or why there is none.
    pub fn find() -> Result<Self, String> {
        let library = Library::this();
        // SAFETY: nothing is called.
        match unsafe { library.get::<unsafe extern "C" fn()>(b"stand_in_calls") } {
            Ok(_) => Ok(Self { library }),
            Err(_) => Err("the driver is not the stand-in; scripts/cuda-stand-in.sh builds it".to_string()),
        }
    }

    fn ask(&self, symbol: &str, text: &str) -> Result<u64> {
        let text = CString::new(text)?;
        // SAFETY: the type is that of `control.rs`, and the text ends with a zero.
        unsafe {
            let ask = self.library.get::<unsafe extern "C" fn(*const c_char) -> u64>(symbol.as_bytes())?;
            Ok(ask(text.as_ptr()))
        }
    }

    /// How often a function was called; all functions for an empty name.
    pub fn calls(&self, name: &str) -> Result<u64> {
        self.ask("stand_in_calls", name)
    }

    /// How often a kernel was launched; `candle` are all of candle's own.
    pub fn launches(&self, kernel: &str) -> Result<u64> {
        self.ask("stand_in_launches", kernel)
    }

    /// What something calls: the counts of these functions.
    pub fn counting<T>(&self, names: &[&'static str], body: impl FnOnce() -> Result<T>) -> Result<(T, Counts)> {
        let count = || names.iter().map(|name| self.calls(name)).collect::<Result<Vec<_>>>();
        let before = count()?;
        let result = body()?;
        let counts = count()?.into_iter().zip(before).map(|(after, before)| after - before);
        Ok((result, names.iter().copied().zip(counts).collect()))
    }

    /// Lets the call that comes `number`th from now fail with a code; none for 0.
    pub fn fail(&self, number: u64, code: u32) -> Result<()> {
        // SAFETY: the type is that of `control.rs`.
        unsafe { self.library.get::<extern "C" fn(u64, u32)>(b"stand_in_fail")?(number, code) };
        Ok(())
    }

    /// Lets the next call of a function fail with a code.
    pub fn fail_next(&self, function: &str, code: u32) -> Result<()> {
        let function = CString::new(function)?;
        type Ask = unsafe extern "C" fn(*const c_char, u32);
        // SAFETY: the type is that of `control.rs`, and the text ends with a zero.
        unsafe { self.library.get::<Ask>(b"stand_in_fail_next")?(function.as_ptr(), code) };
        Ok(())
    }

    /// The function whose call was made to fail; empty if that call never came.
    pub fn failed(&self) -> Result<String> {
        // SAFETY: the type is that of `control.rs`.
        let ask = unsafe { self.library.get::<unsafe extern "C" fn(*mut u8, usize) -> usize>(b"stand_in_failed")? };
        // SAFETY: there is room for so many bytes.
        text(|to, bytes| unsafe { ask(to, bytes) })
    }

    /// What broke the context of a device, which is whole again behind this.
    pub fn finding(&self, device: usize) -> Result<String> {
        type Ask = unsafe extern "C" fn(usize, *mut u8, usize) -> usize;
        // SAFETY: the type is that of `control.rs`.
        let ask = unsafe { self.library.get::<Ask>(b"stand_in_finding")? };
        // SAFETY: there is room for so many bytes.
        text(|to, bytes| unsafe { ask(device, to, bytes) })
    }

    /// How many objects of a kind there are once all work is done.
    pub fn alive(&self, device: usize, kind: &str) -> Result<u64> {
        let kind = CString::new(kind)?;
        type Ask = unsafe extern "C" fn(usize, *const c_char) -> u64;
        // SAFETY: the type is that of `control.rs`, and the text ends with a zero.
        unsafe { Ok(self.library.get::<Ask>(b"stand_in_alive")?(device, kind.as_ptr())) }
    }

    /// Sets how much memory a device has.
    pub fn set_capacity(&self, device: usize, bytes: usize) -> Result<()> {
        // SAFETY: the type is that of `control.rs`.
        unsafe { self.library.get::<extern "C" fn(usize, usize)>(b"stand_in_set_capacity")?(device, bytes) };
        Ok(())
    }
}

/// A text that something writes, and whose length it returns.
fn text(ask: impl FnOnce(*mut u8, usize) -> usize) -> Result<String> {
    let mut bytes = vec![0; 4096];
    let length = ask(bytes.as_mut_ptr(), bytes.len());
    bytes.truncate(length);
    String::from_utf8(bytes).context("a text")
}
