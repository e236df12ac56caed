//! What every test has: the library that stands for the driver, and its devices.

use std::env;
use std::sync::OnceLock;

use anyhow::{Result, anyhow};
use candle_core::Device;

use crate::control::StandIn;
use crate::ptx;

pub type Test = fn(&Bench) -> Result<()>;

/// An Ampere and a Hopper, by number.
pub struct Bench {
    pub driver: StandIn,
    devices: [OnceLock<Device>; 2],
}

impl Bench {
    /// Or why there is none.
    pub fn find() -> Result<Self, String> {
        let driver = StandIn::find()?;
        let folder = ptx::provide().map_err(|error| format!("{error:#}"))?;
        // SAFETY: no other thread has been started.
        unsafe { env::set_var("CUDA_STAND_IN_PTX", folder) };
        Ok(Self { driver, devices: [const { OnceLock::new() }; 2] })
    }

    /// What broke the devices, which are whole again behind this.
    pub fn findings(&self) -> Result<String> {
        for device in self.devices.iter().filter_map(OnceLock::get) {
            if let Device::Cuda(device) = device {
                // What could not be dropped would be the error of the next call.
                let _ = device.cuda_stream().context().check_err();
            }
        }
        Ok((0..self.devices.len()).map(|number| self.driver.finding(number)).collect::<Result<Vec<_>>>()?.concat())
    }

    /// The device of a number, the same for all tests.
    pub fn device(&self, number: usize) -> Result<&Device> {
        let device = self.devices.get(number).ok_or_else(|| anyhow!("no device {number}"))?;
        if device.get().is_none() {
            let _ = device.set(Device::new_cuda(number)?);
        }
        device.get().ok_or_else(|| anyhow!("device {number} is gone"))
    }
}
