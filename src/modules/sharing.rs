//! Whether domains share the weights of a layer, and how checkpoints store weights that they do not share.

use serde::{Deserialize, Serialize};

use super::domains::DomainRuns;
use crate::error::AnchorError;
use crate::plan::TokenSpec;

/// Which way round a checkpoint stores the square weights of untied layers.
///
/// The PyTorch package applies square banks as `x W` while every domain has (nearly) as many tokens as the others, and as
/// `x Wᵀ` otherwise. A model gives right results with the one that it was trained with, which its file does not tell:
/// usually `Plain`, because training usually draws the same number of anchors for every domain. Banks that are not
/// square are always `x Wᵀ`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SquareBanks {
    /// `[out, in]` like all other weights: `y = x Wᵀ`.
    #[default]
    Transposed,
    /// `[in, out]`: `y = x W`.
    Plain,
}

/// Whether all tokens share the weights of a layer, or each domain has its own.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum WeightSharing {
    /// One set of weights.
    #[default]
    Shared,
    /// One set of weights for each domain, stored as `weight.0`, `weight.1`, … in the order of `domains`. A token group
    /// belongs to the domain that [`domain_of`](crate::domain_of) finds.
    PerDomain {
        /// Names of the domains.
        domains: Vec<String>,
        /// How square weights are stored.
        square: SquareBanks,
    },
}

impl WeightSharing {
    /// The runs of tokens that have the same weights.
    ///
    /// # Errors
    /// A group that belongs to no domain, where each domain has its own weights.
    pub fn runs(&self, tokens: &[TokenSpec]) -> std::result::Result<DomainRuns, AnchorError> {
        match self {
            Self::Shared => {
                let sizes = tokens.iter().filter_map(|token| token.size);
                Ok(DomainRuns::from_sizes(&[sizes.fold(0, usize::saturating_add)]))
            }
            Self::PerDomain { domains, .. } => DomainRuns::of_groups(tokens, domains),
        }
    }
}
