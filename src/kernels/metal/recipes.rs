//! The kernels of a call: which file, macros and function constants each one is compiled from.

use super::source::Recipe;
use super::tiling::{Element, Tiling};

/// The attention kernel for a head_dim, with a tile.
pub fn mixed_attention(tiling: &Tiling, element: Element, head_dim: usize) -> Recipe {
    let defines = vec![
        format!("TILE_ELEMENT={}", element.policy()),
        format!("TILE_HEAD_DIM={head_dim}"),
        format!("TILE_ROW_TILES={}", tiling.row_tiles),
        format!("TILE_SIMDGROUPS={}", tiling.simdgroups),
        format!("TILE_KEYS={}", tiling.keys),
        format!("TILE_STAGES={}", tiling.stages),
        format!("TILE_PARKED={}", tiling.parked),
        format!("TILE_CARRY_STEPS={}", tiling.carry_steps()),
        format!("TILE_LOADS={}", tiling.loads(head_dim)),
        format!("TILE_THREADGROUP_BYTES={}", tiling.threadgroup_bytes(head_dim)),
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

/// The kernel of sines and cosines.
pub fn sin_cos() -> Recipe {
    Recipe { function: "sin_cos", defines: Vec::new() }
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
    /// Some queries see only some of the visible keys of a step.
    pub windows: bool,
    /// Log-sum-exps are wanted beside the output.
    pub log_sum_exp: bool,
    /// Keys of the input have biases.
    pub input_bias: bool,
    /// Keys of the cache have biases.
    pub cache_bias: bool,
}

impl Uniform {
    /// A launch with everything.
    pub const EVERYTHING: Self = Self {
        rotation: true,
        cache: true,
        partial_steps: true,
        split_keys: true,
        windows: true,
        log_sum_exp: true,
        input_bias: true,
        cache_bias: true,
    };

    /// The constants in the order of their indices.
    pub fn constants(self) -> [bool; 8] {
        let Self { rotation, cache, partial_steps, split_keys, windows, log_sum_exp, input_bias, cache_bias } = self;
        [rotation, cache, partial_steps, split_keys, windows, log_sum_exp, input_bias, cache_bias]
    }
}
