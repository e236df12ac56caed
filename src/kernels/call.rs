//! A call in numbers.

/// The sizes of a call and the factor of its scores: what launches depend on besides addresses, strides and schedule.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CallShape {
    /// Batch rows.
    pub batch: usize,
    /// Heads of the queries.
    pub heads: usize,
    /// Heads of the keys and values, which divide those of the queries.
    pub kv_heads: usize,
    /// Tokens of the input.
    pub tokens: usize,
    /// Tokens of the cache; 0 without one.
    pub cache_tokens: usize,
    /// Whether some tokens of the input are keys.
    pub input_keys: bool,
    /// Channels of a head, a multiple of 8.
    pub head_dim: usize,
    /// Factor of the scores, positive.
    pub scale: f32,
}

impl CallShape {
    /// The scale as kernels take it, which compute powers of 2.
    pub fn scale_log2(&self) -> f32 {
        (f64::from(self.scale) * std::f64::consts::LOG2_E) as f32
    }

    /// What biases of keys are multiplied by where they are added before the scale.
    pub fn inverse_scale(&self) -> f32 {
        1.0 / self.scale
    }
}
