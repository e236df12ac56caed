//! The engine as a shared library: its C interface.

use std::ffi::{CStr, c_char, c_void};
use std::path::Path;
use std::ptr;

use anyhow::Result;
use libloading::Library;

use crate::finding::RawFinding;
use crate::ptx::{Opcodes, RawProgram};

/// The engine's view of a device: opaque.
#[repr(C)]
pub(crate) struct RawDevice {
    _opaque: [u8; 0],
}

/// Of a launch.
#[repr(C)]
pub(crate) struct Shape {
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub shared_bytes: u64,
    pub order: u64,
}

pub(crate) type LaunchCompiled =
    unsafe extern "C" fn(*mut RawDevice, *const c_char, *const Shape, *const c_void, usize, *mut RawFinding);
pub(crate) type LaunchProgram =
    unsafe extern "C" fn(*mut RawDevice, *const RawProgram, *const Shape, *const c_void, usize, *mut RawFinding);
type Check = unsafe extern "C" fn(*mut RawDevice, *const c_void, usize, bool, *mut RawFinding);
type DescribeOpcode = unsafe extern "C" fn(usize, *mut *const c_char, *mut *const c_char) -> bool;

/// The C interface of a kernel library (`engine/api.cpp`).
#[derive(Debug)]
pub(crate) struct Interface {
    pub device_new: unsafe extern "C" fn() -> *mut RawDevice,
    pub device_free: unsafe extern "C" fn(*mut RawDevice),
    pub allocate: unsafe extern "C" fn(*mut RawDevice, *const c_char, usize, *const c_void, bool) -> *mut c_void,
    pub release: unsafe extern "C" fn(*mut RawDevice, *mut c_void) -> bool,
    pub check: Check,
    pub launch: LaunchCompiled,
    // Keeps the functions above valid; dropped last.
    library: Library,
}

impl Interface {
    pub(crate) fn load(path: &Path) -> Result<Self> {
        // SAFETY: the library is ours, its static initialisers only set up constants.
        let library = unsafe { Library::new(path)? };
        // SAFETY: the types are those of `engine/api.cpp`, and the library outlives the copied pointers.
        unsafe {
            Ok(Self {
                device_new: *library.get(b"emulator_device_new")?,
                device_free: *library.get(b"emulator_device_free")?,
                allocate: *library.get(b"emulator_allocate")?,
                release: *library.get(b"emulator_release")?,
                check: *library.get(b"emulator_check")?,
                launch: *library.get(b"emulator_launch")?,
                library,
            })
        }
    }

    /// What an interpreter can execute.
    pub(crate) fn opcodes(&self) -> Result<Opcodes> {
        // SAFETY: the type is that of `ptx/api.cpp`.
        let describe = unsafe { self.library.get::<DescribeOpcode>(b"emulator_ptx_opcode")? };
        let mut opcodes = Opcodes::default();
        for number in 0.. {
            let (mut name, mut operands) = (ptr::null(), ptr::null());
            // SAFETY: both pointers are valid for writes.
            if !unsafe { describe(number, &mut name, &mut operands) } {
                break;
            }
            // SAFETY: the interpreter set both to texts of its own that end with a zero and last as long as the library.
            let (name, operands) = unsafe { (CStr::from_ptr(name), CStr::from_ptr(operands)) };
            opcodes.add(u32::try_from(number)?, name.to_str()?, operands.to_str()?)?;
        }
        Ok(opcodes)
    }

    /// How the interpreter runs a program.
    pub(crate) fn launch_program(&self) -> Result<LaunchProgram> {
        // SAFETY: the type is that of `ptx/api.cpp`; the caller keeps the library.
        Ok(unsafe { *self.library.get::<LaunchProgram>(b"emulator_ptx_launch")? })
    }
}
