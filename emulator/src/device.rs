//! Emulated device memory and launches.

use std::ffi::CString;
use std::fs;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::Arc;

use anyhow::{Context, Result};
use bytemuck::{NoUninit, Pod, Zeroable};

use crate::compile::Compiler;
use crate::finding::{Finding, RawFinding};
use crate::interface::{Interface, RawDevice, Shape};
use crate::interpreter::{Interpreter, Programs};
use crate::launch::Launch;
use crate::source::Source;

/// Kernels that can run: compiled ones, or programs in PTX.
#[derive(Clone, Debug)]
pub struct Kernels {
    interface: Arc<Interface>,
    path: PathBuf,
    /// None where the kernels are compiled.
    programs: Option<Programs>,
}

impl Kernels {
    /// Compiles (or finds in the cache) and loads the kernels of a file.
    pub fn compile(compiler: &Compiler, source: Source<'_>) -> Result<Self> {
        let path = compiler.build(source)?;
        Ok(Self { interface: Arc::new(Interface::load(&path)?), path, programs: None })
    }

    /// Reads the kernels of a PTX file, for the interpreter, which is compiled unless it is in the cache.
    pub fn interpret(compiler: &Compiler, ptx: &Path) -> Result<Self> {
        let interpreter = Interpreter::new(compiler)?;
        let text = fs::read_to_string(ptx).with_context(|| ptx.display().to_string())?;
        let programs = interpreter.read(&text, ptx)?;
        let Interpreter { interface, path, .. } = interpreter;
        Ok(Self { interface, path, programs: Some(programs) })
    }

    /// A device with no buffers, on which these kernels run.
    pub fn device(&self) -> Device {
        // SAFETY: takes nothing and returns a device of our own.
        let raw = unsafe { (self.interface.device_new)() };
        Device { raw: NonNull::new(raw).expect("`new` does not return null"), kernels: self.clone() }
    }
}

/// Memory of an emulated device.
#[derive(Debug)]
pub struct Device {
    raw: NonNull<RawDevice>,
    kernels: Kernels,
}

impl Drop for Device {
    fn drop(&mut self) {
        // SAFETY: `raw` came from `device_new`; buffers borrow the device, so none is left.
        unsafe { (self.kernels.interface.device_free)(self.raw.as_ptr()) }
    }
}

/// A buffer of an emulated device.
#[derive(Debug)]
pub struct Buffer<'a, T> {
    start: NonNull<T>,
    len: usize,
    device: PhantomData<&'a Device>,
}

impl Device {
    /// A buffer that kernels may only read.
    pub fn input<T: Pod>(&self, name: &str, contents: &[T]) -> Buffer<'_, T> {
        self.allocate(name, contents.len(), Some(contents), false)
    }

    /// A buffer with contents that kernels may read and write.
    pub fn in_out<T: Pod>(&self, name: &str, contents: &[T]) -> Buffer<'_, T> {
        self.allocate(name, contents.len(), Some(contents), true)
    }

    /// A buffer that holds NaN; reading what has not been written is a finding.
    pub fn output<T: Pod>(&self, name: &str, len: usize) -> Buffer<'_, T> {
        self.allocate(name, len, None, true)
    }

    fn allocate<T: Pod>(&self, name: &str, len: usize, contents: Option<&[T]>, writable: bool) -> Buffer<'_, T> {
        let bytes = len * size_of::<T>();
        let initial = contents.map_or(ptr::null(), |contents| contents.as_ptr().cast());
        let name = CString::new(name).expect("a name without a zero byte");
        // SAFETY: `initial` is null or the start of `bytes` readable bytes; the name is copied.
        let start =
            unsafe { (self.kernels.interface.allocate)(self.raw.as_ptr(), name.as_ptr(), bytes, initial, writable) };
        let start = NonNull::new(start.cast()).expect("room in the emulated address space");
        Buffer { start, len, device: PhantomData }
    }

    /// Runs a kernel over the whole grid; the first finding ends it.
    ///
    /// `arguments` holds the kernel's parameters in order, each at its own alignment.
    pub fn launch(&self, kernel: &str, launch: Launch, arguments: &impl NoUninit) -> Result<(), Finding> {
        self.launch_with(kernel, launch, bytemuck::bytes_of(arguments))
    }

    /// The same with the bytes of the parameters.
    pub fn launch_with(&self, kernel: &str, launch: Launch, arguments: &[u8]) -> Result<(), Finding> {
        if let Some(programs) = &self.kernels.programs {
            // SAFETY: the device is alive. The kernel's own accesses are checked by the engine before they happen, and no
            // reference into a buffer exists: `Buffer::read` copies.
            return unsafe { programs.launch(self.raw.as_ptr(), kernel, launch, arguments) };
        }
        let Launch { grid, block, shared_bytes, order } = launch;
        let shape = Shape { grid, block, shared_bytes: shared_bytes as u64, order };
        let name = CString::new(kernel).expect("a name without a zero byte");
        let mut found = RawFinding::new();
        // SAFETY: as above, and all pointers are valid for the call.
        unsafe {
            let (start, bytes) = (arguments.as_ptr().cast(), arguments.len());
            (self.kernels.interface.launch)(self.raw.as_ptr(), name.as_ptr(), &shape, start, bytes, &mut found);
        }
        found.decode(&self.kernels.path).map_or(Ok(()), Err)
    }
}

impl<T: Pod> Buffer<'_, T> {
    /// The address to put into a kernel's arguments.
    pub fn address(&self) -> u64 {
        self.start.as_ptr() as u64
    }

    /// A copy of the contents.
    pub fn read(&self) -> Vec<T> {
        // SAFETY: `len` elements of plain data, alive as long as the device; nobody writes outside of `launch`.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.len) }.to_vec()
    }
}

/// Stands for a `CUtensorMap` in a kernel's arguments (`emulator::TensorMap`).
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct TensorMap {
    magic: u64,
    base: u64,
    rank: u32,
    element_bytes: u32,
    size: [u64; 5],
    stride: [u64; 4],
    boxed: [u32; 5],
    swizzle_span: u32,
    padding: u64,
}

impl TensorMap {
    /// A tensor of `sizes` elements, innermost first; `strides` in bytes for dimension 1 and up; `swizzle_span` 0, 32,
    /// 64 or 128 bytes.
    pub fn new<T: Pod>(
        tensor: &Buffer<'_, T>,
        sizes: &[u64],
        strides: &[u64],
        boxed: &[u32],
        swizzle_span: u32,
    ) -> Self {
        Self::at::<T>(tensor.address(), sizes, strides, boxed, swizzle_span)
    }

    /// The same for a tensor that starts at an address inside a buffer.
    pub fn at<T: Pod>(address: u64, sizes: &[u64], strides: &[u64], boxed: &[u32], swizzle_span: u32) -> Self {
        Self::of(address, size_of::<T>(), sizes, strides, boxed, swizzle_span)
    }

    /// The same for elements of so many bytes.
    pub fn of(
        address: u64,
        element_bytes: usize,
        sizes: &[u64],
        strides: &[u64],
        boxed: &[u32],
        swizzle_span: u32,
    ) -> Self {
        assert!(sizes.len() == boxed.len() && strides.len() + 1 == sizes.len() && sizes.len() <= 5);
        let mut map = Self {
            magic: 0x7061_6d72_6f73_6e74,
            base: address,
            rank: sizes.len() as u32,
            element_bytes: element_bytes as u32,
            swizzle_span,
            ..Self::zeroed()
        };
        map.size[..sizes.len()].copy_from_slice(sizes);
        map.stride[..strides.len()].copy_from_slice(strides);
        map.boxed[..boxed.len()].copy_from_slice(boxed);
        map
    }
}
