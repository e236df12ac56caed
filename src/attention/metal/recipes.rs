//! The kernels of a call: which file, macros and function constants each one is compiled from.

use super::source::Recipe;
use super::tuning::{Element, Row};

/// The attention kernel for a head_dim, with the tile of a row.
pub fn mixed_attention(row: &Row, element: Element, head_dim: usize) -> Recipe {
    let defines = vec![
        format!("TILE_ELEMENT={}", element.policy()),
        format!("TILE_HEAD_DIM={head_dim}"),
        format!("TILE_ROW_TILES={}", row.row_tiles),
        format!("TILE_SIMDGROUPS={}", row.simdgroups),
        format!("TILE_KEYS={}", row.keys),
        format!("TILE_STAGES={}", row.stages),
        format!("TILE_PARKED={}", row.parked),
        format!("TILE_LOADS={}", row.loads(head_dim)),
        format!("TILE_THREADGROUP_BYTES={}", row.threadgroup_bytes(head_dim)),
    ];
    Recipe { function: "mixed_attention", defines }
}

/// The kernel that rotates keys.
pub fn rotate_keys(element: Element) -> Recipe {
    Recipe { function: "rotate_keys", defines: vec![format!("TILE_ELEMENT={}", element.policy())] }
}

/// The kernel that combines the parts of split tiles.
pub fn combine_split_keys(element: Element) -> Recipe {
    Recipe { function: "combine_split_keys", defines: vec![format!("TILE_ELEMENT={}", element.policy())] }
}

/// Function constants of `mixed_attention`, by index: what is uniform over a launch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Uniform {
    /// Queries are rotated.
    pub rotation: bool,
    /// Some steps read the cache.
    pub cache: bool,
    /// Some steps have keys that are not visible.
    pub partial_steps: bool,
    /// Some items write partial results.
    pub split_keys: bool,
}

impl Uniform {
    /// A launch with everything.
    #[allow(dead_code, reason = "tests without a GPU look at the rest")]
    pub const EVERYTHING: Self = Self { rotation: true, cache: true, partial_steps: true, split_keys: true };

    /// The constants in the order of their indices.
    pub fn constants(self) -> [bool; 4] {
        [self.rotation, self.cache, self.partial_steps, self.split_keys]
    }
}
