//! The kernels' source, embedded, as one text per kernel: Metal compiles strings that include nothing of ours.

/// A kernel: one file of `kernels/metal/` with macros.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Recipe {
    /// Its function, and the stem of its file.
    pub function: &'static str,
    /// Macros, as `NAME=VALUE`.
    pub defines: Vec<String>,
}

/// A version of the Metal Shading Language, major and minor.
pub type Language = (u8, u8);

impl Recipe {
    /// The version it is compiled as: 3.1, which knows bf16, where that is multiplied as it is, else 3.0. Named, because
    /// the newest one is another on every system, and newer ones change what address spaces mean.
    pub fn language(&self) -> Language {
        if self.defines.iter().any(|define| define == "TILE_ELEMENT=Bf16") { (3, 1) } else { (3, 0) }
    }
}

/// The files of `kernels/metal/`.
const FILES: [(&str, &str); 10] = [
    ("arguments.h", include_str!("../../../kernels/metal/arguments.h")),
    ("elements.h", include_str!("../../../kernels/metal/elements.h")),
    ("log_sum_exp.h", include_str!("../../../kernels/metal/log_sum_exp.h")),
    ("matrices.h", include_str!("../../../kernels/metal/matrices.h")),
    ("rotation.h", include_str!("../../../kernels/metal/rotation.h")),
    ("window.h", include_str!("../../../kernels/metal/window.h")),
    ("mixed_attention.metal", include_str!("../../../kernels/metal/mixed_attention.metal")),
    ("rotate_keys.metal", include_str!("../../../kernels/metal/rotate_keys.metal")),
    ("combine_split_keys.metal", include_str!("../../../kernels/metal/combine_split_keys.metal")),
    ("sin_cos.metal", include_str!("../../../kernels/metal/sin_cos.metal")),
];

/// The text of a kernel: its macros, then its file with what it includes.
pub fn text(recipe: &Recipe) -> String {
    let mut text: String =
        recipe.defines.iter().map(|define| format!("#define {}\n", define.replacen('=', " ", 1))).collect();
    append(&format!("{}.metal", recipe.function), &mut text);
    text
}

/// Appends a file line by line; a file of ours that it includes takes the place of the `#include`.
fn append(name: &str, text: &mut String) {
    let file = FILES.iter().find(|(known, _)| *known == name).map_or("", |(_, content)| content);
    for line in file.lines().filter(|line| *line != "#pragma once") {
        match line.strip_prefix("#include \"").and_then(|rest| rest.strip_suffix('"')) {
            Some(included) => append(included, text),
            None => {
                text.push_str(line);
                text.push('\n');
            }
        }
    }
}
