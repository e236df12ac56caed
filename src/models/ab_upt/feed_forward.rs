//! The feed-forward branch of a block: `fc2(gelu(fc1 x))`.

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;

use crate::modules::projection::Projection;
use crate::modules::{DomainRuns, WeightSharing};

/// Two linear layers with a GELU between them; shared by all tokens, or one pair for each domain.
#[derive(Debug, Clone)]
pub(super) struct FeedForward {
    widen: Projection,
    narrow: Projection,
}

impl FeedForward {
    /// Loads `fc1` and `fc2`, or the banks `layers.0` and `layers.1`, which always have biases.
    pub(super) fn new(
        (width, hidden): (usize, usize),
        bias: bool,
        sharing: &WeightSharing,
        vb: VarBuilder,
    ) -> Result<Self> {
        let (names, bias) = match sharing {
            WeightSharing::Shared => (["fc1", "fc2"], bias),
            WeightSharing::PerDomain { .. } => (["layers.0", "layers.1"], true),
        };
        Ok(Self {
            widen: Projection::load((width, hidden), bias, sharing, vb.pp(names[0]))?,
            narrow: Projection::load((hidden, width), bias, sharing, vb.pp(names[1]))?,
        })
    }

    /// `x [batch, tokens, width]` to the same shape.
    pub(super) fn forward(&self, x: &Tensor, runs: &DomainRuns) -> Result<Tensor> {
        Projection::feed_forward(&self.widen, &self.narrow, x, runs)
    }
}
