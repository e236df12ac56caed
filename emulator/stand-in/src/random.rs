//! cuRAND: numbers of a generator of our own, the same for the same seed.

use std::sync::Arc;

use crate::driver::{Driver, Handle};
use crate::entries::entries;
use crate::failure::{Failure, Outcome};
use crate::number::Number;
use crate::step::Step;

/// Numbers in (0, 1], by their index: SplitMix64.
fn uniform(index: u64) -> f64 {
    let mut bits = index.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((bits ^ bits >> 31) >> 11) as f64 / (1u64 << 53) as f64 + f64::EPSILON / 2.
}

/// Of two uniform numbers, by Box and Muller.
fn normal(index: u64) -> f64 {
    let (radius, angle) = (uniform(2 * index), uniform(2 * index + 1));
    (-2. * radius.ln()).sqrt() * (std::f64::consts::TAU * angle).cos()
}

/// Fills memory with numbers that no earlier call of the process has had.
fn fill(driver: &mut Driver, handle: Handle, address: u64, numbers: Vec<f64>, number: Number) -> Outcome {
    let &(device, stream) = driver.tools.get(&(handle as u64)).ok_or(Failure::INVALID_HANDLE)?;
    let stream = driver.stream(stream as Handle);
    let device = &mut driver.devices[device];
    device.check()?;
    device.enqueue(stream, Step::Work(Arc::new(move |memory| number.write(memory, address, &numbers))))
}

impl Driver {
    fn next_random(&mut self, count: usize) -> impl Iterator<Item = u64> + use<> {
        let first = self.random_numbers;
        self.random_numbers += count as u64;
        (0..count as u64).map(move |index| first + index)
    }
}

entries! {
    fn curandCreateGenerator(handle: *mut Handle, _kind: u32) |driver, handle, _| driver.new_tool(handle)

    fn curandDestroyGenerator(handle: Handle) |driver, handle| driver.drop_tool(handle)

    fn curandSetStream(handle: Handle, stream: Handle) |driver, handle, stream| driver.move_tool(handle, stream)

    fn curandSetPseudoRandomGeneratorSeed(_handle: Handle, seed: u64) |driver, _, seed| {
        driver.random_numbers = seed << 32;
        Ok(())
    }

    fn curandGenerateUniform(handle: Handle, address: u64, count: usize) |driver, handle, address, count| {
        let numbers = driver.next_random(count).map(uniform).collect();
        fill(driver, handle, address, numbers, Number::F32)
    }

    fn curandGenerateUniformDouble(handle: Handle, address: u64, count: usize) |driver, handle, address, count| {
        let numbers = driver.next_random(count).map(uniform).collect();
        fill(driver, handle, address, numbers, Number::F64)
    }

    fn curandGenerateNormal(handle: Handle, address: u64, count: usize, mean: f32, deviation: f32)
        |driver, handle, address, count, mean, deviation| {
            let scale = |index| f64::from(mean) + f64::from(deviation) * normal(index);
            let numbers = driver.next_random(count).map(scale).collect();
            fill(driver, handle, address, numbers, Number::F32)
        }

    fn curandGenerateNormalDouble(handle: Handle, address: u64, count: usize, mean: f64, deviation: f64)
        |driver, handle, address, count, mean, deviation| {
            let numbers = driver.next_random(count).map(|index| mean + deviation * normal(index)).collect();
            fill(driver, handle, address, numbers, Number::F64)
        }
}
