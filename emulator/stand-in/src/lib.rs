//! Stands for the libraries of an NVIDIA GPU (`libcuda`, `libcublas`, `libcurand`) where there is none, so that a program
//! that uses them runs as it is; `emulator/README.md` says how.
//!
//! | file | idea |
//! |---|---|
//! | [`entries`] | the functions of the driver's interface |
//! | [`blas`], [`random`] | those of cuBLAS and cuRAND that candle calls |
//! | [`calls`] | every call is counted, and one can be made to fail |
//! | [`driver`] | what a process has: devices, events, modules, graphs |
//! | [`device`] | a device: its streams, and the work that waits on them |
//! | [`heap`] | its memory |
//! | [`step`] | one piece of that work |
//! | [`code`] | modules and functions: PTX, or one of candle's kernels |
//! | [`candle`] | candle's own kernels, as loops over memory |
//! | [`tensor_map`] | the rules of tensor maps |
//! | [`control`] | what a test asks and sets |
//!
//! Work runs as late as the interface allows: when something waits for it, and no earlier. What is not ordered behind a
//! wait therefore meets memory that nobody has written, or that has been freed.

mod blas;
mod calls;
mod candle;
mod code;
mod control;
mod device;
mod driver;
mod entries;
mod failure;
mod heap;
mod interpreter;
mod number;
mod random;
mod step;
mod tensor_map;
