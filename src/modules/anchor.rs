//! Anchor attention over the domains of a physics model, such as surface and volume: the patterns that AB-UPT is made of.
//!
//! Each domain has a group of anchors, named `<domain><suffix>`, and usually a group of queries. Only anchors are keys,
//! so the cost is linear in the number of queries, and a query never changes what another token gets.
//!
//! | kind | a token of domain D sees |
//! |---|---|
//! | self | the anchors of D |
//! | cross | the anchors of every other domain, in domain order |
//! | joint | the anchors of every domain, in domain order |
//!
//! A token group belongs to the domain with the longest name that it starts with, followed by `_`: with domains `wing`
//! and `wing_tip`, the group `wing_tip_queries` belongs to `wing_tip`.

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;
use serde::{Deserialize, Serialize};

use super::domains::domain_of;
use super::mixed::{MixedAttention, MixedAttentionConfig};
use super::sharing::{SquareBanks, WeightSharing};
use crate::attention::options::AttentionOptions;
use crate::cache::KvCache;
use crate::error::{AnchorError, PlanError};
use crate::plan::{AttentionPattern, AttentionPlan, TokenSpec};

/// Whose anchors a token sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AnchorKind {
    /// Those of its own domain.
    #[serde(rename = "self")]
    Own,
    /// Those of every other domain.
    Cross,
    /// Those of every domain.
    Joint,
}

/// Configuration of an [`AnchorAttention`] layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnchorAttentionConfig {
    /// The layer itself.
    #[serde(flatten)]
    pub attention: MixedAttentionConfig,
    /// Whose anchors a token sees.
    pub kind: AnchorKind,
    /// Names of the domains; their order is the order of the keys. JSON may call them `branches`.
    #[serde(alias = "branches")]
    pub domains: Vec<String>,
    /// What follows the domain in the name of its anchors. Default: `_anchors`.
    #[serde(default = "default_suffix")]
    pub anchor_suffix: String,
    /// If set, every domain has projections of its own, with square weights stored like this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub untied: Option<SquareBanks>,
}

fn default_suffix() -> String {
    "_anchors".to_string()
}

impl AnchorAttentionConfig {
    /// With anchors named `<domain>_anchors`.
    pub fn new<S: Into<String>>(
        attention: MixedAttentionConfig,
        kind: AnchorKind,
        domains: impl IntoIterator<Item = S>,
    ) -> Self {
        let domains = domains.into_iter().map(Into::into).collect();
        Self { attention, kind, domains, anchor_suffix: default_suffix(), untied: None }
    }

    /// How the domains share the projections.
    pub fn sharing(&self) -> WeightSharing {
        match self.untied {
            None => WeightSharing::Shared,
            Some(square) => WeightSharing::PerDomain { domains: self.domains.clone(), square },
        }
    }
}

/// The patterns of anchor attention.
///
/// ```
/// use candle_mixed_attention::{AnchorKind, TokenSpec, anchor_patterns};
///
/// let tokens = [TokenSpec::new("hull_anchors", 64), TokenSpec::new("air_anchors", 64), TokenSpec::new("air_queries", 9)];
/// let patterns = anchor_patterns(AnchorKind::Cross, &["hull", "air"], &tokens, "_anchors")?;
/// assert_eq!(patterns[1].query_tokens, ["air_anchors", "air_queries"]);
/// assert_eq!(patterns[1].key_value_tokens, ["hull_anchors"]);
/// # Ok::<(), candle_mixed_attention::AnchorError>(())
/// ```
///
/// # Errors
/// No domains, or one where two are needed, or two of one name; a group that belongs to no domain; a domain without
/// groups or without anchors.
pub fn anchor_patterns<S: AsRef<str>>(
    kind: AnchorKind,
    domains: &[S],
    tokens: &[TokenSpec],
    anchor_suffix: &str,
) -> std::result::Result<Vec<AttentionPattern>, AnchorError> {
    let names: Vec<String> = domains.iter().map(|domain| domain.as_ref().to_string()).collect();
    let needs_two = match kind {
        AnchorKind::Own => None,
        AnchorKind::Cross => Some("cross"),
        AnchorKind::Joint => Some("joint"),
    };
    if names.is_empty() {
        return Err(AnchorError::NoDomains);
    }
    if let Some(twice) = names.iter().enumerate().find(|(index, name)| names[..*index].contains(name)) {
        return Err(AnchorError::DuplicateDomain { domain: twice.1.clone() });
    }
    if let (Some(kind), 1) = (needs_two, names.len()) {
        return Err(AnchorError::TooFewDomains { kind, got: names });
    }
    let groups = || tokens.iter().map(|token| token.name.clone()).collect::<Vec<_>>();
    let mut members: Vec<Vec<String>> = vec![Vec::new(); names.len()];
    for token in tokens {
        let domain = domain_of(&token.name, &names).and_then(|domain| names.iter().position(|name| name == domain));
        match domain {
            Some(domain) => members[domain].push(token.name.clone()),
            None => return Err(AnchorError::UnknownDomain { group: token.name.clone(), domains: names }),
        }
    }
    let mut anchors = Vec::with_capacity(names.len());
    for (domain, members) in names.iter().zip(&members) {
        let name = format!("{domain}{anchor_suffix}");
        if members.is_empty() {
            return Err(AnchorError::DomainWithoutTokens { domain: domain.clone(), groups: groups() });
        }
        if !members.contains(&name) {
            return Err(AnchorError::MissingAnchors { domain: domain.clone(), anchors: name, groups: groups() });
        }
        anchors.push(name);
    }
    let others = |own: usize| anchors.iter().enumerate().filter(move |(index, _)| *index != own).map(|(_, name)| name);
    Ok(match kind {
        AnchorKind::Joint => vec![AttentionPattern::queries(groups()).attend_to(anchors)],
        AnchorKind::Own => {
            let pattern = |(members, anchors): (Vec<String>, &String)| {
                AttentionPattern::queries(members).attend_to([anchors.clone()])
            };
            members.into_iter().zip(&anchors).map(pattern).collect()
        }
        AnchorKind::Cross => {
            let pattern = |(domain, members): (usize, Vec<String>)| {
                AttentionPattern::queries(members).attend_to(others(domain).cloned())
            };
            members.into_iter().enumerate().map(pattern).collect()
        }
    })
}

/// Self, cross or joint anchor attention over any domains.
#[derive(Debug, Clone)]
pub struct AnchorAttention {
    config: AnchorAttentionConfig,
    attention: MixedAttention,
}

impl AnchorAttention {
    /// Loads the layer from `mixed_attention` under `vb`, as AB-UPT checkpoints store it.
    ///
    /// # Errors
    /// As [`MixedAttention::new`]; domains that cannot work (none, too few, two of one name).
    pub fn new(config: &AnchorAttentionConfig, vb: VarBuilder) -> Result<Self> {
        // Domains are checked by making the patterns of their anchors alone.
        let anchors: Vec<TokenSpec> = config
            .domains
            .iter()
            .map(|domain| TokenSpec::new(format!("{domain}{}", config.anchor_suffix), 0))
            .collect();
        anchor_patterns(config.kind, &config.domains, &anchors, &config.anchor_suffix)?;
        Ok(Self {
            config: config.clone(),
            attention: MixedAttention::with_sharing(&config.attention, &config.sharing(), vb.pp("mixed_attention"))?,
        })
    }

    /// The configuration.
    pub fn config(&self) -> &AnchorAttentionConfig {
        &self.config
    }

    /// The layer under the patterns.
    pub fn attention(&self) -> &MixedAttention {
        &self.attention
    }

    /// The plan for these groups; keep it where the same groups come again.
    ///
    /// # Errors
    /// As [`anchor_patterns`] and [`AttentionPlan::new`].
    pub fn plan(&self, tokens: &[TokenSpec]) -> std::result::Result<AttentionPlan, PlanError> {
        let config = &self.config;
        let patterns = anchor_patterns(config.kind, &config.domains, tokens, &config.anchor_suffix)?;
        AttentionPlan::new(tokens, patterns)
    }

    /// `x [batch, tokens, hidden_dim]` of these groups, to the same shape.
    ///
    /// # Errors
    /// As [`plan`](Self::plan) and [`MixedAttention::forward`].
    pub fn forward(&self, x: &Tensor, tokens: &[TokenSpec], options: &AttentionOptions) -> Result<Tensor> {
        self.attention.forward(x, &self.plan(tokens)?, options)
    }

    /// As [`forward`](Self::forward), and also returns the cache of the anchors of all domains.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn forward_and_cache(
        &self,
        x: &Tensor,
        tokens: &[TokenSpec],
        options: &AttentionOptions,
    ) -> Result<(Tensor, KvCache)> {
        let plan = self.plan(tokens)?;
        if options.cache_groups.is_some() {
            return self.attention.forward_and_cache(x, &plan, options);
        }
        let anchors = self.config.domains.iter().map(|domain| format!("{domain}{}", self.config.anchor_suffix));
        self.attention.forward_and_cache(x, &plan, &options.clone().cache_groups(anchors))
    }

    /// A later pass over groups whose anchors have no size and come from `cache`.
    ///
    /// # Errors
    /// As [`plan`](Self::plan) and [`MixedAttention::forward_from_cache`].
    pub fn forward_from_cache(
        &self,
        x: &Tensor,
        tokens: &[TokenSpec],
        cache: &KvCache,
        options: &AttentionOptions,
    ) -> Result<Tensor> {
        self.attention.forward_from_cache(x, &self.plan(tokens)?, cache, options)
    }
}
