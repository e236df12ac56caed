//! The emulator's tests of single instructions, on a GPU with the driver's tensor maps: what holds for the wrappers of inline PTX
//! in the emulator holds for their text.
//!
//! The PTX is in the folder that `MIXED_ATTENTION_PRIMITIVES` names (`scripts/gpu-check.sh` makes it).

use std::cell::RefCell;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use candle_core::Device;
use candle_core::cuda::cudarc::driver::{
    CudaFunction, CudaModule, CudaSlice, CudaStream, DevicePtr, LaunchConfig, PushKernelArg, sys,
};
use candle_core::cuda::cudarc::nvrtc::Ptx;
use libtest_mimic::Trial;

use self::checks::{BASIC, Check, HOPPER, Machine, Map};
use crate::support::backends::gpus;

#[path = "../../emulator/tests/self_tests/primitives/checks.rs"]
mod checks;

const FOLDER: &str = "MIXED_ATTENTION_PRIMITIVES";

/// A GPU with the kernels of a file.
struct Gpu {
    stream: Arc<CudaStream>,
    module: Arc<CudaModule>,
    inputs: RefCell<Vec<CudaSlice<u8>>>,
    outputs: RefCell<Vec<CudaSlice<f32>>>,
}

impl Gpu {
    fn new(device: &Device, file: &str) -> Result<Self> {
        let Device::Cuda(device) = device else { bail!("not a CUDA device") };
        let stream = device.cuda_stream();
        let folder = std::env::var_os(FOLDER).context(FOLDER)?;
        let path = Path::new(&folder).join(file);
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let module = stream.context().load_module(Ptx::from_src(text))?;
        Ok(Self { stream, module, inputs: RefCell::default(), outputs: RefCell::default() })
    }

    fn address<T>(&self, slice: &CudaSlice<T>) -> u64 {
        slice.device_ptr(&self.stream).0
    }
}

impl Machine for Gpu {
    fn input(&self, bytes: &[u8]) -> Result<u64> {
        let slice = self.stream.clone_htod(bytes)?;
        let address = self.address(&slice);
        self.inputs.borrow_mut().push(slice);
        Ok(address)
    }

    fn output(&self, numbers: usize) -> Result<u64> {
        // SAFETY: whoever reads it has launched a kernel that writes it.
        let slice = unsafe { self.stream.alloc::<f32>(numbers)? };
        let address = self.address(&slice);
        self.outputs.borrow_mut().push(slice);
        Ok(address)
    }

    fn read(&self, address: u64, numbers: usize) -> Result<Vec<f32>> {
        let outputs = self.outputs.borrow();
        let output = outputs.iter().find(|output| self.address(output) == address).context("an output")?;
        ensure!(output.len() == numbers, "{} numbers", output.len());
        Ok(self.stream.clone_dtoh(output)?)
    }

    fn map(&self, address: u64, sizes: [u64; 4], strides: [u64; 3], boxed: [u32; 4], swizzle: u32) -> Result<Map> {
        let swizzle = match swizzle {
            0 => sys::CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_NONE,
            64 => sys::CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_64B,
            128 => sys::CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_128B,
            other => bail!("no swizzle of {other} bytes"),
        };
        let mut map = sys::CUtensorMap { opaque: [0; 16] };
        // SAFETY: the arrays have a number per dimension (strides: per dimension but the first); the driver only notes the
        // address.
        let encoded = unsafe {
            sys::cuTensorMapEncodeTiled(
                &mut map,
                sys::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_UINT16,
                4,
                address as *mut _,
                sizes.as_ptr(),
                strides.as_ptr(),
                boxed.as_ptr(),
                [1; 4].as_ptr(),
                sys::CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
                swizzle,
                sys::CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_NONE,
                sys::CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
            )
        };
        encoded.result()?;
        Ok(Map(map.opaque))
    }

    fn launch(&self, kernel: &str, threads: u32, shared_bytes: usize, arguments: &[u8]) -> Result<()> {
        let function: CudaFunction = self.module.load_function(kernel)?;
        let config =
            LaunchConfig { grid_dim: (1, 1, 1), block_dim: (threads, 1, 1), shared_mem_bytes: shared_bytes as u32 };
        // The driver takes as many bytes as the parameter has.
        let mut lines = vec![Line([0; 16]); arguments.len().div_ceil(size_of::<Line>())];
        bytemuck::cast_slice_mut(&mut lines)[..arguments.len()].copy_from_slice(arguments);
        let Some(first) = lines.first() else { bail!("no arguments") };
        let mut builder = self.stream.launch_builder(&function);
        builder.arg(first);
        // SAFETY: the parameter has the layout that the kernel declares, its addresses are those of live memory.
        unsafe { builder.launch(config)? };
        Ok(())
    }
}

/// Bytes at the alignment of a tensor map.
#[repr(C, align(128))]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Line([u64; 16]);

// SAFETY: plain numbers.
unsafe impl candle_core::cuda::cudarc::driver::DeviceRepr for Line {}

/// A test of each kernel, ignored with the reason where it cannot run.
pub fn trials() -> Vec<Trial> {
    let of_file = |file: &'static str, table: &'static [(&'static str, Check)], hopper: bool| {
        table.iter().map(move |&(name, check)| {
            let title = format!("cuda::primitive::{name}");
            match machine(hopper) {
                Ok(device) => Trial::test(title, move || {
                    let outcome = Gpu::new(device, file).and_then(|gpu| check(&gpu, name));
                    Ok(outcome.map_err(|error| format!("{error:#}"))?)
                }),
                Err(reason) => Trial::test(format!("{title} ({reason})"), || Ok(())).with_ignored_flag(true),
            }
        })
    };
    of_file("primitives.ptx", &BASIC, false).chain(of_file("primitives_hopper.ptx", &HOPPER, true)).collect()
}

/// The GPU, or why it cannot run kernels (for Hopper).
fn machine(hopper: bool) -> Result<&'static Device, String> {
    let gpu = gpus().iter().find(|gpu| gpu.name == "cuda").ok_or("no CUDA device")?;
    let device = gpu.device.as_ref()?;
    if std::env::var_os(FOLDER).is_none() {
        return Err(format!("{FOLDER} names no folder"));
    }
    let Device::Cuda(cuda) = device else { return Err("not a CUDA device".to_string()) };
    match cuda.cuda_stream().context().compute_capability() {
        Ok((9, 0)) => Ok(device),
        Ok((major, minor)) if hopper => Err(format!("for Hopper, and this is {major}.{minor}")),
        Ok(_) => Ok(device),
        Err(error) => Err(error.to_string()),
    }
}
