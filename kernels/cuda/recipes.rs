//! What to compile: the kernels of the tuning table as files and macros, for `build.rs` and for the emulated tests.

use super::tuning::{Element, ROTATE_THREADS, SM80_ROWS, Sm80Row, rotate_name};

/// Every element type.
pub const ELEMENTS: [Element; 4] = [Element::F16, Element::Bf16, Element::F32, Element::Tf32];

/// A kernel: one file of this folder with macros.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipe {
    /// Its name.
    pub name: String,
    /// Its file.
    pub file: &'static str,
    /// Macros, as `NAME=VALUE`.
    pub defines: Vec<String>,
    /// Dynamic shared memory of a block.
    pub shared_bytes: usize,
}

/// The policy of `elements.cuh`.
fn policy(element: Element) -> &'static str {
    match element {
        Element::F16 => "F16",
        Element::Bf16 => "Bf16",
        Element::F32 => "F32",
        Element::Tf32 => "Tf32",
    }
}

/// The attention kernel of a row.
pub fn sm80(row: &Sm80Row, element: Element) -> Recipe {
    let name = row.kernel_name(element);
    let defines = vec![
        format!("KERNEL_NAME={name}"),
        format!("TILE_ELEMENT={}", policy(element)),
        format!("TILE_HEAD_DIM={}", row.head_dim),
        format!("TILE_ROW_TILES={}", row.row_tiles),
        format!("TILE_WARPS={}", row.warps),
        format!("TILE_KEYS={}", row.keys),
        format!("TILE_STAGES={}", row.stages),
        format!("TILE_RESIDENT_QUERIES={}", row.resident_queries),
        format!("TILE_BLOCKS_PER_SM={}", row.blocks_per_sm),
        format!("TILE_SHARED_BYTES={}", row.shared_bytes()),
    ];
    Recipe { name, file: "attention_sm80.cu", defines, shared_bytes: row.shared_bytes() }
}

/// The kernel that rotates keys. TF32 keys are f32 in memory.
pub fn rotate_keys(element: Element) -> Recipe {
    let name = rotate_name(element).to_string();
    let stored = if element == Element::Tf32 { Element::F32 } else { element };
    let defines = vec![
        format!("KERNEL_NAME={name}"),
        format!("TILE_ELEMENT={}", policy(stored)),
        format!("ROTATE_THREADS={ROTATE_THREADS}"),
    ];
    Recipe { name, file: "rotate_keys.cu", defines, shared_bytes: 0 }
}

/// Every kernel for GPUs since compute capability 8.0.
pub fn all_sm80() -> Vec<Recipe> {
    let of_row = |row: &'static Sm80Row| {
        let elements = ELEMENTS.into_iter().filter(|element| element.bytes() == row.element_bytes);
        elements.map(|element| sm80(row, element))
    };
    let rotate = [Element::F16, Element::Bf16, Element::F32].map(rotate_keys);
    SM80_ROWS.iter().flat_map(of_row).chain(rotate).collect()
}
