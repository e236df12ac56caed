//! PTX written by hand: instructions at the edges of what they are defined for, and text that is refused.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Error, Result, ensure};
use bytemuck::NoUninit;
use emulator::{Compiler, Kernels, Launch, trial};
use libtest_mimic::Trial;

/// Instructions that put their result into `%r9`, from `%r0` = 3, `%r1` = 0x8000_0001, `%r2` = 40, `%f0` = NaN, `%f1` = 1.5
/// and `%rd0` = 0x1_0000_0002.
const RESULTS: [(&str, &str, u32); 20] = [
    ("shift_left_by_more_than_the_width", "shl.b32 %r9, %r0, %r2;", 0),
    ("shift_right_by_more_than_the_width", "shr.u32 %r9, %r1, %r2;", 0),
    ("signed_shift_right_by_more_than_the_width", "shr.s32 %r9, %r1, %r2;", u32::MAX),
    ("signed_and_unsigned_differ", "setp.lt.s32 %p0, %r1, %r0;\nselp.u32 %r9, 1, 0, %p0;", 1),
    ("unsigned_comparison", "setp.lt.u32 %p0, %r1, %r0;\nselp.u32 %r9, 1, 0, %p0;", 0),
    ("bits_are_inserted", "bfi.b32 %r9, %r0, %r1, 4, 2;", 0x8000_0031),
    ("products_wrap", "mul.lo.s32 %r9, %r1, %r0;", 0x8000_0003),
    (
        "wide_signed_product",
        "mul.wide.s32 %rd1, %r1, %r0;\nshr.u64 %rd1, %rd1, 32;\ncvt.u32.u64 %r9, %rd1;",
        0xffff_fffe,
    ),
    ("wide_unsigned_product", "mul.wide.u32 %rd1, %r1, %r0;\nshr.u64 %rd1, %rd1, 32;\ncvt.u32.u64 %r9, %rd1;", 1),
    ("signed_extension", "cvt.s64.s32 %rd1, %r1;\nshr.u64 %rd1, %rd1, 32;\ncvt.u32.u64 %r9, %rd1;", u32::MAX),
    ("halves_of_64_bits", "mov.b64 {%r8, %r9}, %rd0;", 1),
    ("not_equal_is_false_with_nan", "setp.ne.f32 %p0, %f0, %f1;\nselp.u32 %r9, 1, 0, %p0;", 0),
    ("not_equal_or_nan_is_true_with_nan", "setp.neu.f32 %p0, %f0, %f1;\nselp.u32 %r9, 1, 0, %p0;", 1),
    ("maximum_leaves_nan_out", "max.f32 %f2, %f0, %f1;\nmov.b32 %r9, %f2;", 0x3fc0_0000),
    ("maximum_keeps_nan", "max.NaN.f32 %f2, %f1, %f0;\nsetp.nan.f32 %p0, %f2, %f2;\nselp.u32 %r9, 1, 0, %p0;", 1),
    ("the_first_source_is_the_upper_half", "cvt.rn.f16x2.f32 %r9, %f1, 0f00000000;", 0x3e00_0000),
    ("exponentials_flush_to_zero", "ex2.approx.ftz.f32 %f2, 0fC2FE0000;\nmov.b32 %r9, %f2;", 0),
    ("a_guard_that_is_false_skips", "mov.u32 %r9, 1;\nsetp.eq.s32 %p0, %r0, 3;\n@!%p0 mov.u32 %r9, 2;", 1),
    ("a_name_ends_with_its_braces", "mov.u32 %r9, 1;\n{\n.reg .b32 %r9;\nmov.u32 %r9, 2;\n}", 1),
    (
        "a_value_survives_a_loop",
        "mov.u32 %r9, 0;\nmov.u32 %r8, 0;\nL:\nadd.s32 %r9, %r9, %r0;\nadd.s32 %r8, %r8, 1;\n\
      setp.lt.u32 %p0, %r8, 5;\n@%p0 bra L;",
        15,
    ),
];

/// Lines in the place of the results', and what the error says about them. They begin in line 16.
const REFUSED: [(&str, &str, &str); 6] = [
    ("an_unknown_opcode", "sin.approx.f32 %f2, %f1;", "line 16: `sin.approx.f32` is not interpreted"),
    ("an_unknown_register", "mov.u32 %r9, %r99;", "`%r99` is not declared"),
    ("a_register_of_the_wrong_width", "add.s32 %r9, %rd0, %r0;", "line 16: no form of `add.s32` has these operands"),
    ("too_few_operands", "add.s32 %r9, %r0;", "expected 3 operands, found 2"),
    ("local_memory", ".local .align 4 .b8 depot[8];", "`.local` is not interpreted"),
    ("a_number_that_is_none", "mov.u32 %r9, 12x;", "line 16"),
];

fn text(body: &str) -> String {
    format!(
        ".version 9.0\n.target sm_80\n.address_size 64\n.visible .entry kernel(.param .u64 out)\n{{\n\
         .reg .pred %p<1>;\n.reg .b32 %r<10>;\n.reg .f32 %f<3>;\n.reg .b64 %rd<3>;\n\
         mov.u32 %r0, 3;\nmov.u32 %r1, 0x80000001;\nmov.u32 %r2, 40;\nmov.f32 %f0, 0f7FC00000;\nmov.f32 %f1, 0f3FC00000;\n\
         mov.u64 %rd0, 0x100000002;\n{body}\n\
         ld.param.u64 %rd2, [out];\ncvta.to.global.u64 %rd2, %rd2;\nst.global.u32 [%rd2], %r9;\nret;\n}}\n"
    )
}

#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct TextArguments {
    out: u64,
}

fn kernels(compiler: Result<Compiler, String>, name: &str, body: &str) -> Result<Kernels> {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.ptx"));
    fs::write(&path, text(body))?;
    Kernels::interpret(&compiler.map_err(Error::msg)?, &path)
}

fn result(kernels: &Kernels) -> Result<u32> {
    let device = kernels.device();
    let out = device.output::<u32>("out", 1);
    let launch = Launch { grid: [1; 3], block: [1; 3], shared_bytes: 0, order: 0 };
    device.launch("kernel", launch, &TextArguments { out: out.address() })?;
    Ok(out.read()[0])
}

pub fn trials(compiler: &Result<Compiler, String>) -> Vec<Trial> {
    let results = RESULTS.iter().map(|&(name, body, expected)| {
        let tool = compiler.clone();
        trial(&format!("ptx_text::{name}"), compiler, move || {
            let found = result(&kernels(tool, name, body)?)?;
            ensure!(found == expected, "{found:#x} instead of {expected:#x}");
            Ok(())
        })
    });
    let refused = REFUSED.iter().map(|&(name, body, expected)| {
        let tool = compiler.clone();
        trial(&format!("ptx_text::{name}"), compiler, move || {
            let error = kernels(tool, name, body).err().context("not refused")?;
            let message = format!("{error:#}");
            ensure!(message.contains(expected), "'{message}' does not say '{expected}'");
            Ok(())
        })
    });
    results.chain(refused).collect()
}
