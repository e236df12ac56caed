//! Which tokens belong to which domain.

use crate::error::AnchorError;
use crate::plan::TokenSpec;

/// The domain that a group belongs to: the longest name that it starts with, followed by `_`.
pub fn domain_of<'a, S: AsRef<str>>(group: &str, domains: &'a [S]) -> Option<&'a str> {
    let belongs = |domain: &&str| group.strip_prefix(domain).is_some_and(|rest| rest.starts_with('_'));
    domains.iter().map(AsRef::as_ref).filter(belongs).max_by_key(|domain| domain.len())
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

    /// The runs as (domain, tokens).
    pub(super) fn as_slice(&self) -> &[(usize, usize)] {
        &self.runs
    }

    /// Number of tokens of all runs, at most the largest `usize`.
    pub fn tokens(&self) -> usize {
        self.runs.iter().fold(0, |sum, (_, tokens)| sum.saturating_add(*tokens))
    }
}
