//! The token groups of a pass: for each domain its anchors, then its queries.

use std::ops::Range;

use candle_core::{DType, Device, Result, Tensor};

use super::config::AbUptConfig;
use crate::plan::TokenSpec;
use crate::transfer::to_device;

/// What follows the domain in the name of its anchor group.
pub(super) const ANCHOR_SUFFIX: &str = "_anchors";

const QUERY_SUFFIX: &str = "_queries";

/// The token groups of a pass and the positions of its tokens.
///
/// Every domain has a group of anchors: in a first pass with a size, which may be 0, in a later one cached. Its group of
/// queries exists only if queries were given.
pub(super) struct DomainTokens {
    groups: Vec<TokenSpec>,
    domains: Vec<DomainPart>,
    /// `[batch, tokens, position_dim]`, f32.
    positions: Tensor,
}

/// The part of one domain.
struct DomainPart {
    /// Its groups in `DomainTokens::groups`.
    groups: Range<usize>,
    /// Its tokens of the input.
    tokens: Range<usize>,
    /// How many of them are anchors.
    anchors: usize,
    has_queries: bool,
}

impl DomainTokens {
    /// Of a first pass; `anchors` and `queries` are in the order of the domains.
    pub(super) fn first(
        config: &AbUptConfig,
        batch: usize,
        anchors: &[Option<&Tensor>],
        queries: &[Option<&Tensor>],
        device: &Device,
    ) -> Result<Self> {
        let size = |tensor: &Option<&Tensor>| tensor.map_or(0, |tensor| tensor.dims()[1]);
        let sizes = anchors.iter().map(|anchors| Some(size(anchors))).collect();
        Self::new(config, batch, sizes, anchors, queries, device)
    }

    /// Of a later pass, whose anchors are cached.
    pub(super) fn later(
        config: &AbUptConfig,
        batch: usize,
        queries: &[Option<&Tensor>],
        device: &Device,
    ) -> Result<Self> {
        let none = vec![None; config.domains.len()];
        Self::new(config, batch, vec![None; config.domains.len()], &none, queries, device)
    }

    fn new(
        config: &AbUptConfig,
        batch: usize,
        anchor_sizes: Vec<Option<usize>>,
        anchors: &[Option<&Tensor>],
        queries: &[Option<&Tensor>],
        device: &Device,
    ) -> Result<Self> {
        let (mut groups, mut domains, mut positions) = (Vec::new(), Vec::new(), Vec::new());
        let mut start = 0;
        for (((domain, size), anchors), queries) in config.domains.iter().zip(anchor_sizes).zip(anchors).zip(queries) {
            let (first_group, mut end) = (groups.len(), start + size.unwrap_or(0));
            groups.push(TokenSpec { name: format!("{}{ANCHOR_SUFFIX}", domain.name), size });
            positions.extend(*anchors);
            if let Some(queries) = queries {
                let size = queries.dim(1)?;
                groups.push(TokenSpec::new(format!("{}{QUERY_SUFFIX}", domain.name), size));
                positions.push(queries);
                end += size;
            }
            domains.push(DomainPart {
                groups: first_group..groups.len(),
                tokens: start..end,
                anchors: size.unwrap_or(0),
                has_queries: queries.is_some(),
            });
            start = end;
        }
        let positions = positions.into_iter().filter(|positions| positions.elem_count() > 0);
        let positions = positions.map(|positions| to_device(&positions.to_dtype(DType::F32)?, device));
        let positions = positions.collect::<Result<Vec<_>>>()?;
        let positions = match positions.is_empty() {
            true => Tensor::zeros((batch, start, config.position_dim), DType::F32, device)?,
            false => Tensor::cat(&positions, 1)?,
        };
        Ok(Self { groups, domains, positions })
    }

    /// All groups.
    pub(super) fn groups(&self) -> &[TokenSpec] {
        &self.groups
    }

    /// The groups of one domain; its anchors come first.
    pub(super) fn groups_of(&self, domain: usize) -> &[TokenSpec] {
        &self.groups[self.domains[domain].groups.clone()]
    }

    /// Names of the anchor groups of all domains.
    pub(super) fn anchor_groups(&self) -> impl Iterator<Item = &str> {
        self.domains.iter().map(|part| self.groups[part.groups.start].name.as_str())
    }

    /// First token and number of tokens of one domain.
    pub(super) fn range(&self, domain: usize) -> (usize, usize) {
        let tokens = &self.domains[domain].tokens;
        (tokens.start, tokens.len())
    }

    /// How many tokens of one domain, the first ones, are anchors.
    pub(super) fn anchors(&self, domain: usize) -> usize {
        self.domains[domain].anchors
    }

    /// Whether queries were given for a domain.
    pub(super) fn has_queries(&self, domain: usize) -> bool {
        self.domains[domain].has_queries
    }

    /// Number of samples.
    pub(super) fn batch(&self) -> usize {
        self.positions.dims()[0]
    }

    /// Positions of all tokens, `[batch, tokens, position_dim]` in f32.
    pub(super) fn positions(&self) -> &Tensor {
        &self.positions
    }
}
