//! The CUDA backend from `Device::new_cuda` to the result, on a library that stands for the driver and runs the kernels'
//! PTX in the emulator. Ignored, with the reason, on a real driver.

mod bench;
mod capture;
#[path = "../support/compare.rs"]
mod compare;
mod control;
mod devices;
mod faults;
mod gradients;
mod memory;
#[path = "../support/problem.rs"]
mod problem;
mod ptx;
mod results;
mod streams;
mod warm;

use anyhow::Context;
use libtest_mimic::{Arguments, Trial};

use bench::{Bench, Test};

/// In this order: the first one meets a driver that nobody has called.
const TESTS: [&[(&str, Test)]; 8] = [
    &faults::TESTS,
    &results::TESTS,
    &warm::TESTS,
    &capture::TESTS,
    &memory::TESTS,
    &streams::TESTS,
    &gradients::TESTS,
    &devices::TESTS,
];

fn main() {
    let mut arguments = Arguments::from_args();
    // Tests count calls and make them fail: one at a time.
    arguments.test_threads = Some(1);
    let bench: &'static Result<Bench, String> = Box::leak(Box::new(Bench::find()));
    let run = |bench: &Bench, test: Test| {
        // What broke a device in another test is not this one's.
        bench.findings()?;
        let outcome = test(bench);
        match bench.findings()? {
            found if found.is_empty() => outcome,
            found => outcome.context(found),
        }
    };
    let trial = |&(name, test): &(&'static str, Test)| match bench {
        Ok(bench) => Trial::test(name, move || Ok(run(bench, test).map_err(|error| format!("{error:#}"))?)),
        Err(reason) => Trial::test(format!("{name} ({reason})"), || Ok(())).with_ignored_flag(true),
    };
    libtest_mimic::run(&arguments, TESTS.into_iter().flatten().map(trial).collect()).exit();
}
