//! What to compile: the kernels of the tuning table as files and macros, for `build.rs` and for the emulated tests.

use super::tuning::{Element, ROTATE_THREADS, Row, SM80_ROWS, SM90_ROWS, Sm80Row, Sm90Row, rotate_name};

/// Every element type.
pub const ELEMENTS: [Element; 4] = [Element::F16, Element::Bf16, Element::F32, Element::Tf32];

/// What a kernel is compiled to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// PTX that drivers compile for any GPU since compute capability 8.0.
    Compute80,
    /// Machine code for compute capability 9.0, with the instructions that only Hopper has.
    Sm90a,
}

/// A kernel: one file of this folder with macros.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipe {
    /// Its name.
    pub name: String,
    /// What for.
    pub target: Target,
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
pub fn attention(row: Row, element: Element) -> Recipe {
    match row {
        Row::Sm80(row) => sm80(row, element),
        Row::Sm90(row) => sm90(row, element),
    }
}

fn sm80(row: &Sm80Row, element: Element) -> Recipe {
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
    let (file, target) = ("attention_sm80.cu", Target::Compute80);
    Recipe { name, target, file, defines, shared_bytes: row.shared_bytes() }
}

fn sm90(row: &Sm90Row, element: Element) -> Recipe {
    let name = row.kernel_name(element);
    let defines = vec![
        format!("KERNEL_NAME={name}"),
        format!("TILE_ELEMENT={}", policy(element)),
        format!("TILE_HEAD_DIM={}", row.head_dim),
        format!("TILE_CONSUMERS={}", row.consumers),
        format!("TILE_STAGES={}", row.stages),
        format!("TILE_PRODUCER_REGISTERS={}", row.producer_registers),
        format!("TILE_CONSUMER_REGISTERS={}", row.consumer_registers),
        format!("TILE_POLYNOMIAL={}", row.polynomial),
        format!("TILE_TAKE_TURNS={}", row.take_turns),
        format!("TILE_SHARED_BYTES={}", row.shared_bytes()),
    ];
    let (file, target) = ("attention_sm90.cu", Target::Sm90a);
    Recipe { name, target, file, defines, shared_bytes: row.shared_bytes() }
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
    Recipe { name, target: Target::Compute80, file: "rotate_keys.cu", defines, shared_bytes: 0 }
}

/// Every row with the element types that it serves.
pub fn rows() -> impl Iterator<Item = (Row, Element)> {
    let sm80 = SM80_ROWS.iter().flat_map(|row| {
        let elements = ELEMENTS.into_iter().filter(|element| element.bytes() == row.element_bytes);
        elements.map(move |element| (Row::Sm80(row), element))
    });
    let sm90 = SM90_ROWS.iter().flat_map(|row| [Element::F16, Element::Bf16].map(|element| (Row::Sm90(row), element)));
    sm80.chain(sm90)
}

/// Every kernel.
pub fn all() -> Vec<Recipe> {
    let rotate = [Element::F16, Element::Bf16, Element::F32].map(rotate_keys);
    rows().map(|(row, element)| attention(row, element)).chain(rotate).collect()
}
