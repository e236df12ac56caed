//! The memory of a device.

use std::collections::HashMap;

use emulator::DeviceMemory;

use crate::failure::{Failure, Outcome};
use crate::interpreter::interpreter;

/// What memory a device has, unless a test says otherwise.
const CAPACITY: usize = 2 << 30;

/// Memory and what is allocated of it.
pub(crate) struct Heap {
    pub capacity: usize,
    /// Made by the first allocation.
    memory: Option<DeviceMemory>,
    /// Bytes of what is allocated, by address.
    allocations: HashMap<u64, usize>,
}

impl Default for Heap {
    fn default() -> Self {
        Self { capacity: CAPACITY, memory: None, allocations: HashMap::new() }
    }
}

impl Heap {
    pub(crate) fn used(&self) -> usize {
        self.allocations.values().sum()
    }

    pub(crate) fn buffers(&self) -> usize {
        self.allocations.len()
    }

    /// Whether an allocation begins here.
    pub(crate) fn has(&self, address: u64) -> bool {
        self.allocations.contains_key(&address)
    }

    /// Memory, which nobody has written yet. None of 0 bytes.
    pub(crate) fn allocate(&mut self, bytes: usize) -> Outcome<u64> {
        if bytes == 0 {
            return Ok(0);
        }
        if bytes > self.capacity.saturating_sub(self.used()) {
            return Err(Failure::OUT_OF_MEMORY);
        }
        let name = format!("{bytes} bytes");
        let address = self.memory()?.allocate(&name, bytes).ok_or(Failure::OUT_OF_MEMORY)?;
        self.allocations.insert(address, bytes);
        Ok(address)
    }

    pub(crate) fn free(&mut self, address: u64) -> Outcome {
        if address == 0 {
            return Ok(());
        }
        self.allocations.remove(&address).ok_or(Failure::INVALID_VALUE)?;
        self.memory()?.free(address);
        Ok(())
    }

    pub(crate) fn memory(&mut self) -> Outcome<&mut DeviceMemory> {
        if self.memory.is_none() {
            self.memory = Some(DeviceMemory::new(interpreter()?));
        }
        self.memory.as_mut().ok_or(Failure::OUT_OF_MEMORY)
    }
}
