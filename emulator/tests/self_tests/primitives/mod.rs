//! Primitives in the emulator, in several thread orders.

mod checks;

use std::cell::RefCell;

use anyhow::{Context, Result, ensure};
use emulator::{Buffer, Device, Launch, TensorMap};
use libtest_mimic::Trial;

use super::Way;
use checks::{BASIC, Check, HOPPER, Machine, Map};

const ORDERS: [u64; 3] = [0, 1, 5];

/// An emulated device whose threads take turns in some order.
struct Emulated<'a> {
    device: &'a Device,
    order: u64,
    outputs: RefCell<Vec<Buffer<'a, f32>>>,
}

impl Machine for Emulated<'_> {
    fn input(&self, bytes: &[u8]) -> Result<u64> {
        Ok(self.device.input("input", bytes).address())
    }

    fn output(&self, numbers: usize) -> Result<u64> {
        let buffer = self.device.output("output", numbers);
        let address = buffer.address();
        self.outputs.borrow_mut().push(buffer);
        Ok(address)
    }

    fn read(&self, address: u64, numbers: usize) -> Result<Vec<f32>> {
        let outputs = self.outputs.borrow();
        let numbers_of = outputs.iter().find(|output| output.address() == address).map(Buffer::read);
        let found = numbers_of.context("an output")?;
        ensure!(found.len() == numbers, "{} numbers", found.len());
        Ok(found)
    }

    fn map(&self, address: u64, sizes: [u64; 4], strides: [u64; 3], boxed: [u32; 4], swizzle: u32) -> Result<Map> {
        Ok(bytemuck::cast(TensorMap::at::<u16>(address, &sizes, &strides, &boxed, swizzle)))
    }

    fn launch(&self, kernel: &str, threads: u32, shared_bytes: usize, arguments: &[u8]) -> Result<()> {
        let launch = Launch { grid: [1; 3], block: [threads, 1, 1], shared_bytes, order: self.order };
        Ok(self.device.launch_with(kernel, launch, arguments)?)
    }
}

pub fn trials(way: &Way) -> Vec<Trial> {
    let mut trials = Vec::new();
    trials.extend(file_trials(way, "primitives.cu", &BASIC));
    trials.extend(file_trials(way, "primitives_hopper.cu", &HOPPER));
    trials
}

fn file_trials(way: &Way, file: &'static str, table: &'static [(&str, Check)]) -> Vec<Trial> {
    let kernels = way.kernels(file, table.iter().map(|(name, _)| *name).collect());
    let trial = |&(name, check): &'static (&'static str, Check)| {
        way.trial("primitive", name, kernels, move |kernels| {
            ORDERS.iter().try_for_each(|&order| {
                check(&Emulated { device: &kernels.device(), order, outputs: RefCell::default() }, name)
            })
        })
    };
    table.iter().map(trial).collect()
}
