//! The crate's GPU kernels executed on the CPU.
//!
//! Without a C++ compiler the tests are ignored, each with the reason in its name.

mod emulated_kernels;

use emulator::Compiler;
use libtest_mimic::Arguments;

fn main() {
    let arguments = Arguments::from_args();
    let compiler = Compiler::find();
    libtest_mimic::run(&arguments, emulated_kernels::trials(&compiler)).exit();
}
