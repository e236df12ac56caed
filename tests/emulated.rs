//! GPU kernels executed on the CPU: the emulator's tests of itself, and the crate's kernels.
//!
//! Without a C++ compiler the tests are ignored, each with the reason in its name.

mod emulated_cuda;
mod emulator;

use libtest_mimic::Arguments;

use emulator::Compiler;

fn main() {
    let arguments = Arguments::from_args();
    let compiler = Compiler::find();
    let mut trials = emulator::self_tests::trials(&compiler);
    trials.extend(emulated_cuda::trials(&compiler));
    libtest_mimic::run(&arguments, trials).exit();
}
