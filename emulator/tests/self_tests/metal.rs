//! The Metal vocabulary: its detectors, its matrix products and the check of address spaces.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use bytemuck::Pod;
use half::{bf16, f16};
use libtest_mimic::Trial;

use FindingKind::*;
use emulator::{Compiler, Device, Finding, FindingKind, Kernels, Launch, MetalArguments, unqualified_pointers};

const ORDERS: [u64; 4] = [0, 1, 2, 3];
const THREADS: usize = 64;

/// Kernel and what it ends with; several kinds where it depends on who runs first.
const DETECTORS: [(&str, &[FindingKind]); 6] = [
    ("missing_threadgroup_barrier", &[Race, Uninitialised]),
    ("barrier_without_memory", &[Race]),
    ("beyond_the_buffer", &[OutOfBounds]),
    ("load_beyond_the_buffer", &[OutOfBounds]),
    ("divergent_maximum", &[Divergence]),
    ("two_groups_write_one_address", &[Blocks]),
];

fn file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels/self_tests.metal")
}

fn launch(device: &Device, kernel: &str, order: u64, groups: u32, arguments: &MetalArguments) -> Result<(), Finding> {
    let launch = Launch { grid: [groups, 1, 1], block: [THREADS as u32, 1, 1], shared_bytes: 2 * THREADS * 4, order };
    device.launch(kernel, launch, arguments)
}

fn launch_detector(kernels: &Kernels, kernel: &str, seeded: bool, order: u64) -> Result<(), Finding> {
    let device = kernels.device();
    let input = device.input("input", &[1.0f32; THREADS]);
    let output = device.output::<f32>("output", 2 * THREADS);
    let mut arguments = MetalArguments::new();
    arguments.buffers[0] = input.address();
    arguments.buffers[1] = output.address();
    arguments.threadgroup_bytes = 4 * THREADS as u64;
    arguments.constants[0] = seeded.into();
    // Only one of these kernels tells its threadgroups apart.
    let groups = if kernel == "two_groups_write_one_address" { 2 } else { 1 };
    launch(&device, kernel, order, groups, &arguments)
}

fn multiply<T: Pod>(kernels: &Kernels, kernel: &str, convert: fn(f32) -> T) -> Result<()> {
    let a: Vec<f32> = (0..64).map(|i| (i * 7 % 13) as f32 - 6.0).collect();
    let b: Vec<f32> = (0..64).map(|i| (i * 5 % 11) as f32 - 5.0).collect();
    let product = |i: usize| (0..8).map(|k| a[i / 8 * 8 + k] * b[i % 8 * 8 + k]).sum::<f32>() + a[i];
    let expected: Vec<f32> = (0..64).map(product).collect();
    let converted = |values: &[f32]| values.iter().map(|&value| convert(value)).collect::<Vec<_>>();
    for order in ORDERS {
        let device = kernels.device();
        let (a, b) = (device.input("a", &converted(&a)), device.input("b", &converted(&b)));
        let d = device.output::<f32>("d", 2 * 64);
        let mut arguments = MetalArguments::new();
        arguments.buffers[..3].copy_from_slice(&[a.address(), b.address(), d.address()]);
        launch(&device, kernel, order, 1, &arguments)?;
        ensure!(d.read() == [expected.as_slice(), &expected].concat(), "order {order}: {:?}", d.read());
    }
    Ok(())
}

fn reduce(kernels: &Kernels) -> Result<()> {
    let device = kernels.device();
    let values: Vec<f32> = (0..THREADS).map(|i| (i * 3 % 32) as f32).collect();
    let input = device.input("input", &values);
    let output = device.output::<[f32; 4]>("output", THREADS);
    let mut arguments = MetalArguments::new();
    arguments.buffers[..2].copy_from_slice(&[input.address(), output.address()]);
    launch(&device, "reduce", 2, 1, &arguments)?;
    for (i, got) in output.read().into_iter().enumerate() {
        let group = &values[i / 32 * 32..][..32];
        let largest = group.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let expected = [group.iter().sum::<f32>(), largest, values[i ^ 1], group[2]];
        ensure!(got == expected, "thread {i}: {got:?} instead of {expected:?}");
    }
    Ok(())
}

/// Passes the file as it is; refuses a pointer that changes its address space, and C++17.
fn check_language(compiler: &Compiler) -> Result<()> {
    compiler.check_language(&file(), &[])?;
    for (seeded, expected) in [
        ("WRONG_ADDRESS_SPACE", "of type 'threadgroup float *'"),
        ("WRONG_STANDARD", "constexpr if is a C++17 extension"),
    ] {
        let refusal = compiler.check_language(&file(), &[seeded]).err().context("not refused")?;
        let refusal = format!("{refusal:#}");
        ensure!(refusal.contains(expected), "{seeded}: refused for another reason: {refusal}");
    }
    Ok(())
}

/// Passes the file as it is, refuses a matrix that is kept in a struct, and counts the registers of many sums.
fn check_opencl(compiler: &Compiler) -> Result<()> {
    let path = file().with_file_name("opencl.metal");
    compiler.check_opencl(&path, &["SUMS=4"])?;
    let refusal = compiler.check_opencl(&path, &["SUMS=4", "KEPT_MATRIX"]).err().context("not refused")?;
    ensure!(format!("{refusal:#}").contains("default constructor"), "refused for another reason: {refusal:#}");
    let few = compiler.registers(&path, "many_sums", &["SUMS=4"], 128)?;
    ensure!(few.used < 64 && few.spilled == 0, "{few:?}");
    let many = compiler.registers(&path, "many_sums", &["SUMS=100"], 128)?;
    ensure!(many.spilled > 0, "200 registers of 128: {many:?}");
    Ok(())
}

/// Finds pointers without an address space, and only those.
fn find_unqualified_pointers() -> Result<()> {
    let bad = ["float* p = x;", "const half4 & v, int i", "struct S; void f(S* s)", "vec<half, 4>* tile)"];
    let good = ["device float* p = x;", "float thread& v,", "const constant half4* p)", "a = b * c;", "if (x && y)"];
    let wrong = |text: &&str| unqualified_pointers(text).is_empty();
    ensure!(!bad.iter().any(wrong), "missed: {:?}", bad.iter().find(|text| wrong(text)));
    ensure!(good.iter().all(wrong), "found: {:?}", good.iter().find(|text| !wrong(text)));
    Ok(())
}

type Test = Box<dyn Fn(&Kernels) -> Result<()> + Send>;

pub fn trials() -> Vec<Trial> {
    let compiler = Compiler::find_clang();
    let mut names: Vec<_> = DETECTORS.iter().map(|(name, _)| *name).collect();
    names.extend(["multiply<half>", "multiply<bfloat>", "multiply<float>", "reduce"]);
    let names = names.into_iter().map(str::to_string).collect();
    let kernels = emulator::compile_once(&compiler, file(), names, Vec::new());
    let trial = |name: &str, test: Test| {
        emulator::trial(&format!("metal::{name}"), &compiler, move || test(emulator::compiled(kernels)?))
    };
    let mut trials: Vec<_> = DETECTORS
        .iter()
        .map(|&(name, kinds)| {
            let check = move |kernels: &Kernels| {
                super::check_detector(&ORDERS, kinds, |seeded, order| launch_detector(kernels, name, seeded, order))
            };
            trial(name, Box::new(check))
        })
        .collect();
    trials.push(trial("multiply_f16", Box::new(|kernels| multiply(kernels, "multiply<half>", f16::from_f32))));
    trials.push(trial("multiply_bf16", Box::new(|kernels| multiply(kernels, "multiply<bfloat>", bf16::from_f32))));
    trials.push(trial("multiply_f32", Box::new(|kernels| multiply(kernels, "multiply<float>", |value| value))));
    trials.push(trial("reduce", Box::new(reduce)));
    let clang = compiler.clone();
    let check = move |_: &Kernels| check_language(clang.as_ref().map_err(|reason| anyhow::anyhow!("{reason}"))?);
    trials.push(trial("language", Box::new(check)));
    let clang = compiler.clone();
    let check = move |_: &Kernels| check_opencl(clang.as_ref().map_err(|reason| anyhow::anyhow!("{reason}"))?);
    trials.push(trial("opencl", Box::new(check)));
    let lint = || Ok(find_unqualified_pointers().map_err(|error| format!("{error:#}"))?);
    trials.push(Trial::test("metal::unqualified_pointers", lint));
    trials
}
