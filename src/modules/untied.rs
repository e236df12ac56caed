//! Linear layers with weights of their own for every domain ("untied"), and which tokens belong to which.

use candle_core::{Result, Tensor};
use candle_nn::init::DEFAULT_KAIMING_NORMAL;
use candle_nn::{Init, Linear, VarBuilder};
use serde::{Deserialize, Serialize};

use super::anchor::domain_of;
use crate::ops::{Epilogue, linear};
use crate::{AnchorError, AttentionError, TokenSpec};

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
    /// belongs to the domain that [`domain_of`] finds.
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

/// Consecutive tokens and the domain that each run of them belongs to.
///
/// ```
/// use candle_mixed_attention::{DomainRuns, TokenSpec};
///
/// let tokens = [TokenSpec::new("hull_anchors", 8), TokenSpec::new("hull_queries", 2), TokenSpec::new("air_anchors", 5)];
/// let runs = DomainRuns::of_groups(&tokens, &["hull", "air"])?;
/// assert_eq!(runs, DomainRuns::from_sizes(&[10, 5]));
/// # Ok::<(), candle_mixed_attention::AnchorError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DomainRuns {
    /// (domain, tokens); no run is empty, and neighbours differ in their domain.
    runs: Vec<(usize, usize)>,
}

impl DomainRuns {
    /// `sizes[d]` tokens of every domain `d`, in order.
    pub fn from_sizes(sizes: &[usize]) -> Self {
        Self::collect(sizes.iter().copied().enumerate())
    }

    /// The runs of the input groups. Groups of a domain need not be neighbours; cached groups are not in the input.
    ///
    /// # Errors
    /// A group that belongs to no domain.
    pub fn of_groups<S: AsRef<str>>(tokens: &[TokenSpec], domains: &[S]) -> std::result::Result<Self, AnchorError> {
        let mut runs = Vec::with_capacity(tokens.len());
        for token in tokens {
            let domain = domain_of(&token.name, domains).ok_or_else(|| AnchorError::UnknownDomain {
                group: token.name.clone(),
                domains: domains.iter().map(|domain| domain.as_ref().to_string()).collect(),
            })?;
            let position = domains.iter().position(|name| name.as_ref() == domain);
            runs.extend(position.zip(token.size));
        }
        Ok(Self::collect(runs))
    }

    fn collect(runs: impl IntoIterator<Item = (usize, usize)>) -> Self {
        let mut merged: Vec<(usize, usize)> = Vec::new();
        for (domain, tokens) in runs.into_iter().filter(|(_, tokens)| *tokens > 0) {
            match merged.last_mut() {
                Some((last, sum)) if *last == domain => *sum = sum.saturating_add(tokens),
                _ => merged.push((domain, tokens)),
            }
        }
        Self { runs: merged }
    }

    /// Number of tokens of all runs, at most the largest `usize`.
    pub fn tokens(&self) -> usize {
        self.runs.iter().fold(0, |sum, (_, tokens)| sum.saturating_add(*tokens))
    }
}

/// A linear layer with one weight and bias per domain.
#[derive(Debug, Clone)]
pub struct UntiedLinear {
    banks: Vec<Linear>,
}

impl UntiedLinear {
    /// Loads `weight.0`, `weight.1`, … and, if configured, `bias.0`, `bias.1`, …
    ///
    /// # Errors
    /// No domain; a tensor is missing or has another shape than `[out_dim, in_dim]`.
    pub fn new(
        (in_dim, out_dim): (usize, usize),
        domains: usize,
        bias: bool,
        square: SquareBanks,
        vb: &VarBuilder,
    ) -> Result<Self> {
        if domains == 0 {
            let (expected, got) = ("at least 1", "0".to_string());
            return Err(AttentionError::Value { argument: "number of domains", expected, got }.into());
        }
        // As candle's linear layers begin, where there is no file.
        let bound = 1.0 / (in_dim as f64).sqrt();
        let (of_weight, of_bias) = (DEFAULT_KAIMING_NORMAL, Init::Uniform { lo: -bound, up: bound });
        let bank = |domain: usize| {
            let weight = vb.get_with_hints((out_dim, in_dim), &format!("weight.{domain}"), of_weight)?;
            let weight = match square {
                // A view of weights that are being trained, which follows them.
                SquareBanks::Plain if in_dim == out_dim && weight.track_op() => weight.t()?,
                SquareBanks::Plain if in_dim == out_dim => weight.t()?.contiguous()?,
                _ => weight,
            };
            let bias = if bias { Some(vb.get_with_hints(out_dim, &format!("bias.{domain}"), of_bias)?) } else { None };
            Ok(Linear::new(weight, bias))
        };
        Ok(Self { banks: (0..domains).map(bank).collect::<Result<_>>()? })
    }

    /// One layer for each domain, all of one shape.
    pub(super) fn of_banks(banks: Vec<Linear>) -> Self {
        Self { banks }
    }

    /// The layer of each domain.
    pub(super) fn banks(&self) -> &[Linear] {
        &self.banks
    }

    /// `x [batch, tokens, in_dim]` to `[batch, tokens, out_dim]`, each run of tokens by the weights of its domain.
    ///
    /// # Errors
    /// Runs that hold another number of tokens or name a domain without weights; another width.
    pub fn forward(&self, x: &Tensor, runs: &DomainRuns) -> Result<Tensor> {
        self.forward_then(x, runs, Epilogue::None)
    }

    /// As [`forward`](Self::forward), followed by a function of every number.
    pub(super) fn forward_then(&self, x: &Tensor, runs: &DomainRuns, epilogue: Epilogue) -> Result<Tensor> {
        let (_, tokens, _) = x.dims3()?;
        if runs.tokens() != tokens {
            let (expected, groups) = (runs.tokens(), format!("{:?} (domain, tokens)", runs.runs));
            return Err(AttentionError::TokenCount { argument: "x", expected, got: tokens, groups }.into());
        }
        let mut outputs = Vec::with_capacity(runs.runs.len());
        let mut start = 0;
        for &(domain, len) in &runs.runs {
            let bank = self.banks.get(domain).ok_or_else(|| AttentionError::Value {
                argument: "domain",
                expected: "one that has weights",
                got: format!("domain {domain} of {}", self.banks.len()),
            })?;
            outputs.push(linear(bank, &x.narrow(1, start, len)?, epilogue)?);
            start += len;
        }
        match (outputs.as_slice(), self.banks.first()) {
            ([], Some(bank)) => linear(bank, x, epilogue),
            ([output], _) => Ok(output.clone()),
            (outputs, _) => Tensor::cat(outputs, 1),
        }
    }
}
