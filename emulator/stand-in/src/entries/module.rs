//! Modules, functions and launches.

use std::ffi::{CStr, c_char, c_void};
use std::slice;

use super::context::most_shared_bytes;
use super::{entries, give};
use crate::code::Module;
use crate::driver::Handle;
use crate::failure::Failure;
use crate::step::Step;

/// The attribute of a function that says how much dynamic shared memory its blocks may have.
const MOST_DYNAMIC_SHARED_BYTES: u32 = 8;

/// Orders of threads and blocks that launches take one after the other: see [`emulator::Launch`].
const ORDERS: [u64; 4] = [0, 1, 7, 1234];

entries! {
    fn cuModuleLoadData(module: *mut Handle, image: *const u8) |driver, module, image| {
        let (number, device) = driver.current()?;
        device.refuse_in_capture(None)?;
        let loaded = Module::load(number, image)?;
        let handle = driver.new_handle();
        driver.modules.insert(handle, loaded);
        give(module, handle as Handle)
    }

    fn cuModuleUnload(module: Handle) |driver, module| {
        driver.modules.remove(&(module as u64)).map(drop).ok_or(Failure::INVALID_HANDLE)
    }

    fn cuModuleGetFunction(function: *mut Handle, module: Handle, name: *const c_char) |driver, function, module, name| {
        let module = driver.modules.get(&(module as u64)).ok_or(Failure::INVALID_HANDLE)?;
        let found = module.function(&CStr::from_ptr(name).to_string_lossy())?;
        let handle = driver.new_handle();
        driver.functions.insert(handle, found);
        give(function, handle as Handle)
    }

    fn cuFuncSetAttribute(function: Handle, attribute: u32, value: i32) |driver, function, attribute, value| {
        let function = driver.functions.get_mut(&(function as u64)).ok_or(Failure::INVALID_HANDLE)?;
        let most = most_shared_bytes(driver.devices[function.device].capability);
        if attribute != MOST_DYNAMIC_SHARED_BYTES || !(0..=most).contains(&value) {
            return Err(Failure::INVALID_VALUE);
        }
        function.shared_bytes = value as u32;
        Ok(())
    }

    fn cuLaunchKernel(
        function: Handle,
        grid_x: u32,
        grid_y: u32,
        grid_z: u32,
        block_x: u32,
        block_y: u32,
        block_z: u32,
        shared_bytes: u32,
        stream: Handle,
        parameters: *const *const c_void,
        _extra: *const *const c_void,
    ) |driver, function, grid_x, grid_y, grid_z, block_x, block_y, block_z, shared_bytes, stream, parameters, _| {
        let (number, _) = driver.current()?;
        let function = driver.functions.get(&(function as u64)).ok_or(Failure::INVALID_HANDLE)?.clone();
        let (grid, block) = ([grid_x, grid_y, grid_z], [block_x, block_y, block_z]);
        let threads = block.iter().map(|&extent| u64::from(extent)).product::<u64>();
        let too_large = grid_x > i32::MAX as u32 || grid_y > 0xffff || grid_z > 0xffff || threads > 1024;
        if grid.contains(&0) || threads == 0 || too_large || shared_bytes > function.shared_bytes {
            return Err(Failure::INVALID_VALUE);
        }
        if function.device != number {
            return Err(Failure::INVALID_HANDLE);
        }
        let bytes = function.parameters.iter().map(|(offset, bytes)| offset + bytes).max().unwrap_or_default();
        let mut arguments = vec![0; bytes];
        for (index, &(offset, bytes)) in function.parameters.iter().enumerate() {
            let parameter = parameters.add(index).read();
            arguments[offset..offset + bytes].copy_from_slice(slice::from_raw_parts(parameter.cast::<u8>(), bytes));
        }
        driver.count_launch(&function);
        let order = ORDERS[driver.launches as usize % ORDERS.len()];
        driver.enqueue(stream, Step::Work(function.work(grid, block, shared_bytes, order, arguments)))
    }
}
