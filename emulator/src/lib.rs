//! Runs CUDA and Metal kernels on the CPU, from their unmodified source, with every access checked. See `README.md`.

#![deny(missing_debug_implementations, unreachable_pub)]

mod compile;
mod device;
mod finding;
mod interface;
mod interpreter;
mod launch;
mod lazy;
mod memory;
mod metal;
mod metal_lint;
mod nvcc;
mod ptx;
mod source;

pub use compile::{Compiler, Registers};
pub use device::{Buffer, Device, Kernels, TensorMap};
pub use finding::{Finding, FindingKind};
pub use interpreter::{Interpreter, Programs};
pub use launch::Launch;
pub use lazy::{LazyKernels, build_once, compile_once, compiled, trial};
pub use memory::DeviceMemory;
pub use metal::MetalArguments;
pub use metal_lint::unqualified_pointers;
pub use nvcc::{Nvcc, PtxSource};
pub use source::Source;
