//! What to compile: the kernels of the tables of tiles as files and macros, for `build.rs` and for the emulated tests.

use super::tiling::{
    Element, ROTATE_THREADS, SM80_TILINGS, SM90_TILINGS, Sm80Tiling, Sm90Tiling, Tiling, Variant, rotate_name,
};

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

/// The attention kernel with a tile.
pub fn attention(tiling: Tiling, element: Element, variant: Variant) -> Recipe {
    match tiling {
        Tiling::Sm80(tiling) => sm80(tiling, element, variant),
        Tiling::Sm90(tiling) => sm90(tiling, element, variant),
    }
}

fn sm80(tiling: &Sm80Tiling, element: Element, variant: Variant) -> Recipe {
    let name = tiling.kernel_name(element, variant);
    let defines = vec![
        format!("KERNEL_NAME={name}"),
        format!("TILE_ELEMENT={}", policy(element)),
        format!("TILE_HEAD_DIM={}", tiling.head_dim),
        format!("TILE_ROW_TILES={}", tiling.row_tiles),
        format!("TILE_WARPS={}", tiling.warps),
        format!("TILE_KEYS={}", tiling.keys),
        format!("TILE_RESIDENT_QUERIES={}", tiling.resident_queries),
        format!("TILE_PARKED_SUMS={}", tiling.parked_sums),
        format!("TILE_BLOCKS_PER_SM={}", tiling.blocks_per_sm),
        format!("TILE_GENERAL={}", variant == Variant::General),
        format!("TILE_SHARED_BYTES={}", tiling.shared_bytes()),
    ];
    let (file, target) = ("attention_sm80.cu", Target::Compute80);
    Recipe { name, target, file, defines, shared_bytes: tiling.shared_bytes() }
}

fn sm90(tiling: &Sm90Tiling, element: Element, variant: Variant) -> Recipe {
    let name = tiling.kernel_name(element, variant);
    let defines = vec![
        format!("KERNEL_NAME={name}"),
        format!("TILE_ELEMENT={}", policy(element)),
        format!("TILE_HEAD_DIM={}", tiling.head_dim),
        format!("TILE_CONSUMERS={}", tiling.consumers),
        format!("TILE_STAGES={}", tiling.stages),
        format!("TILE_PRODUCER_REGISTERS={}", tiling.producer_registers),
        format!("TILE_CONSUMER_REGISTERS={}", tiling.consumer_registers),
        format!("TILE_POLYNOMIAL={}", tiling.polynomial),
        format!("TILE_TAKE_TURNS={}", tiling.take_turns),
        format!("TILE_PIN_EXPONENTIALS={}", tiling.pin_exponentials),
        format!("TILE_GENERAL={}", variant == Variant::General),
        format!("TILE_SHARED_BYTES={}", tiling.shared_bytes()),
    ];
    let (file, target) = ("attention_sm90.cu", Target::Sm90a);
    Recipe { name, target, file, defines, shared_bytes: tiling.shared_bytes() }
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

/// Every tile with the element types that it serves.
pub fn tilings() -> impl Iterator<Item = (Tiling, Element)> {
    let sm80 = SM80_TILINGS.iter().flat_map(|tiling| {
        let elements = ELEMENTS.into_iter().filter(|element| element.bytes() == tiling.element_bytes);
        elements.map(move |element| (Tiling::Sm80(tiling), element))
    });
    let sm90 = SM90_TILINGS
        .iter()
        .flat_map(|tiling| [Element::F16, Element::Bf16].map(|element| (Tiling::Sm90(tiling), element)));
    sm80.chain(sm90)
}

/// Every kernel.
pub fn all() -> Vec<Recipe> {
    let rotate = [Element::F16, Element::Bf16, Element::F32].map(rotate_keys);
    let variants = |(tiling, element)| Variant::ALL.map(|variant| attention(tiling, element, variant));
    tilings().flat_map(variants).chain(rotate).collect()
}
