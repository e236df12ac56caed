//! From a `.metal` file to C++ that clang compiles, and the arguments of a Metal kernel.
//!
//! Clang takes Metal's text as it stands but for attributes. They are cut out, after being used: those of a kernel's
//! parameters say what to call it with, `function_constant` makes a run-time constant of a declaration. A `threadgroup`
//! array inside a function becomes memory of the block. Lines keep their numbers. Kernels, function constants and
//! threadgroup arrays must stand in the `.metal` file itself; files that it includes are not rewritten.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use bytemuck::{Pod, Zeroable};

use crate::source::{Source, folder};

/// What is bound to a Metal kernel (`emulator::MetalArguments`).
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct MetalArguments {
    /// Addresses, by buffer index.
    pub buffers: [u64; 31],
    /// Where the memory of `threadgroup(n)` parameters starts.
    pub threadgroup_offsets: [u32; 8],
    /// How much of the threadgroup memory these parameters take; arrays declared in functions follow.
    pub threadgroup_bytes: u64,
    /// Function constants, in the low bytes.
    pub constants: [u64; 64],
}

impl MetalArguments {
    /// Nothing bound.
    pub fn new() -> Self {
        Self::zeroed()
    }
}

impl Default for MetalArguments {
    fn default() -> Self {
        Self::new()
    }
}

/// A translation unit of the rewritten file and the table of its kernels.
pub(super) fn entry_text(source: Source<'_>) -> Result<String> {
    let metal = read(source.path)?;
    let mut text = rewritten(source.path, &metal, Mode::Run)?;
    let table = folder().join("engine/kernel_table.h");
    let _ = writeln!(text, "\n#line 1 \"entry\"\n#include {table:?}");
    for (i, kernel) in source.kernels.iter().enumerate() {
        let name = kernel.split('<').next().unwrap_or_default().trim();
        let arguments = bound_arguments(&metal, name)?.join(", ");
        let _ = writeln!(text, "static EMULATOR_UNCHECKED void call_{i}(const void*) {{ {kernel}({arguments}); }}");
    }
    text += "extern \"C\" const emulator::Kernel emulator_kernels[] = {\n";
    for (i, kernel) in source.kernels.iter().enumerate() {
        let _ = writeln!(text, "    {{{kernel:?}, call_{i}, sizeof(emulator::MetalArguments)}},");
    }
    Ok(text + "    {nullptr, nullptr, 0}};\n")
}

/// A translation unit for a syntax check with address spaces.
pub(super) fn checked_text(path: &Path) -> Result<String> {
    rewritten(path, &read(path)?, Mode::Check)
}

/// A translation unit in OpenCL C++, with all function constants set. With a `kernel`, an entry point that calls it.
pub(super) fn opencl_text(path: &Path, kernel: Option<&str>) -> Result<String> {
    let metal = read(path)?;
    let mut text = rewritten(path, &metal, Mode::OpenCl)?;
    if let Some(kernel) = kernel {
        let arguments = bound_arguments(&metal, kernel)?.join(", ");
        text += "\n__attribute__((amdgpu_num_vgpr(REGISTERS), amdgpu_waves_per_eu(10, 10))) ";
        let _ = writeln!(text, "__kernel void entry(__global ulong* buffers) {{ {kernel}({arguments}); }}");
    }
    Ok(text)
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| path.display().to_string())
}

#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Run,
    Check,
    OpenCl,
}

fn rewritten(path: &Path, metal: &str, mode: Mode) -> Result<String> {
    let text: Vec<_> = metal.split('\n').map(|line| rewrite_declaration(line, mode)).collect();
    let mut text = text.join("\n");
    if mode == Mode::OpenCl {
        // The word for a kernel, which is a macro there.
        text = text.replace("[[kernel,", "kernel [[kernel,");
    }
    Ok(format!("#include <binding.h>\n#line 1 {path:?}\n{}", without_attributes(&text)?))
}

/// A line that declares a function constant or a threadgroup array, in C++; any other line as it is.
fn rewrite_declaration(line: &str, mode: Mode) -> String {
    function_constant(line, mode).or_else(|| threadgroup_array(line, mode)).unwrap_or_else(|| line.to_string())
}

/// `constant bool causal [[function_constant(0)]];`
fn function_constant(line: &str, mode: Mode) -> Option<String> {
    let (declaration, rest) = line.trim().strip_prefix("constant ")?.split_once("[[function_constant(")?;
    let (index, rest) = rest.split_once(")]]")?;
    let (kind, name) = declaration.trim().rsplit_once(' ')?;
    Some(match mode {
        Mode::Run | Mode::Check => {
            format!("static const emulator::FunctionConstant<{kind}, {index}> {name}{{}}{rest}")
        }
        Mode::OpenCl => format!("constant constexpr {kind} {name} = 1{rest}"),
    })
}

/// `threadgroup half tile[32 * 64];`
fn threadgroup_array(line: &str, mode: Mode) -> Option<String> {
    let (declaration, rest) = line.trim().strip_prefix("threadgroup ")?.split_once(';')?;
    let (variable, extents) = declaration.split_at(declaration.find('[')?);
    let (kind, name) = variable.trim().rsplit_once(' ')?;
    if variable.contains(['*', '&', '(', '=']) {
        return None;
    }
    Some(match mode {
        Mode::Run => format!("auto& {name} = emulator::threadgroup_array<{kind}{extents}, __COUNTER__>();{rest}"),
        Mode::Check => format!("static threadgroup {kind} {name}{extents};{rest}"),
        Mode::OpenCl => {
            format!("auto& {name} = emulator::threadgroup_array<{kind}{extents}>(__COUNTER__);{rest}")
        }
    })
}

/// The text without `[[…]]`, newlines kept.
fn without_attributes(text: &str) -> Result<String> {
    let mut kept = String::new();
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once("[[") {
        let (attribute, behind) = behind.split_once("]]").context("an attribute without an end")?;
        kept += before;
        kept.extend(attribute.chars().filter(|&c| c == '\n'));
        rest = behind;
    }
    Ok(kept + rest)
}

/// What each parameter of a kernel is called with.
fn bound_arguments(metal: &str, kernel: &str) -> Result<Vec<String>> {
    for (start, _) in metal.match_indices("void ") {
        let before = metal[..start].trim_end();
        let Some((name, behind)) = metal[start + "void ".len()..].split_once('(') else { continue };
        if name.trim() == kernel && is_kernel(before) {
            return parameters(behind).into_iter().map(bound_argument).collect();
        }
    }
    bail!("no kernel `{kernel}` in the file")
}

/// Whether what stands before a function makes it a kernel: `kernel`, or an attribute that begins with it.
fn is_kernel(before: &str) -> bool {
    let attributes = before.strip_suffix("]]").and_then(|before| before.rsplit_once("[["));
    let first = attributes.and_then(|(_, attributes)| attributes.split(',').next());
    before.ends_with("kernel") || first.is_some_and(|first| first.trim() == "kernel")
}

/// The parameters behind an opening parenthesis, up to its closing one.
fn parameters(behind: &str) -> Vec<&str> {
    let (mut depth, mut start, mut found) = (0, 0, Vec::new());
    for (i, c) in behind.char_indices() {
        match c {
            ')' | ',' if depth == 0 => {
                found.push(behind[start..i].trim());
                start = i + 1;
                if c == ')' {
                    break;
                }
            }
            '(' | '[' | '<' => depth += 1,
            ')' | ']' | '>' => depth -= 1,
            _ => {}
        }
    }
    found
}

/// `device half* out [[buffer(3)]]` is called with `emulator::buffer(3)`.
fn bound_argument(parameter: &str) -> Result<String> {
    let attribute = parameter.split_once("[[").and_then(|(_, behind)| behind.split_once("]]"));
    let Some((attribute, _)) = attribute else { bail!("parameter `{parameter}` has no attribute") };
    let attribute = attribute.split(", function_constant").next().unwrap_or_default().trim();
    Ok(match attribute.split_once('(') {
        Some(("threadgroup", index)) => format!("emulator::threadgroup_memory({index}"),
        Some(_) => format!("emulator::{attribute}"),
        None => format!("emulator::{attribute}()"),
    })
}
