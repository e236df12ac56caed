//! The description of an AB-UPT network.

mod checks;
mod defaults;
mod physics_block;
mod pooling;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub(super) use checks::{check_block, check_width};
use checks::{check_positive, unique};
pub use physics_block::{PhysicsBlock, PhysicsKind};
pub use pooling::{Aggregation, MessageMode, PoolingConfig, PositionMode};

use super::error::AbUptError;
use crate::modules::{AnchorKind, SquareBanks, WeightSharing};

/// Everything that an [`AbUpt`](super::AbUpt) is made of. The JSON form is the serde form; the order of the lists is the
/// order in the network.
///
/// ```
/// use candle_mixed_attention::models::ab_upt::AbUptConfig;
///
/// let config: AbUptConfig = serde_json::from_str(r#"{
///     "hidden_dim": 48, "num_heads": 3, "mlp_hidden_dim": 192,
///     "physics_blocks": ["self", "cross"],
///     "condition": [{"name": "inflow", "dim": 3}],
///     "domains": [
///         {"name": "surface", "decoder_blocks": 1, "fields": [{"name": "pressure", "dim": 1}]},
///         {"name": "volume", "decoder_blocks": 1, "fields": [{"name": "velocity", "dim": 3}]}
///     ]
/// }"#).unwrap();
/// config.validate()?;
/// assert_eq!(config.condition_dim(), 3);
/// # Ok::<(), candle_mixed_attention::models::ab_upt::AbUptError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AbUptConfig {
    /// Width of the tokens.
    pub hidden_dim: usize,
    /// Number of heads of every attention; divides `hidden_dim`.
    pub num_heads: usize,
    /// Hidden width of the feed-forward layers.
    pub mlp_hidden_dim: usize,
    /// Coordinates of a position: 1, 2 or 3. Default: 3.
    #[serde(default = "defaults::position_dim")]
    pub position_dim: usize,
    /// Longest wavelength over 2π of RoPE and of the position embedding, in units of the positions. The embeddings of
    /// the geometry always use 10,000. Default: 10,000.
    #[serde(default = "defaults::max_wavelength")]
    pub max_wavelength: f64,
    /// Whether the transformer blocks have biases; perceiver blocks always do. Default: true.
    #[serde(default = "defaults::bias")]
    pub bias: bool,
    /// Added to the variance by the layer norms of the transformer blocks; perceiver blocks always use 1e-6.
    #[serde(default = "defaults::layer_norm_eps")]
    pub layer_norm_eps: f64,
    /// Whether the transformer blocks scale their branches by learned factors; perceiver blocks never do.
    #[serde(default)]
    pub layer_scale: bool,
    /// The blocks that all domains go through together.
    pub physics_blocks: Vec<PhysicsBlock>,
    /// Transformer blocks over the supernodes. They exist only where a physics block is a perceiver.
    #[serde(default)]
    pub geometry_depth: usize,
    /// The encoder of the geometry; needed where a physics block is a perceiver.
    #[serde(default)]
    pub supernode_pooling: Option<PoolingConfig>,
    /// The conditioning inputs; empty for a network without conditioning.
    #[serde(default)]
    pub condition: Vec<Component>,
    /// The domains.
    pub domains: Vec<DomainConfig>,
    /// How square weights of untied blocks are stored; [`SquareBanks::Transposed`] if not set.
    #[serde(default)]
    pub untied_square_banks: Option<SquareBanks>,
}

/// A named part of a vector: a conditioning input or an output field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Component {
    /// Its name.
    pub name: String,
    /// Its number of components.
    pub dim: usize,
}

/// One domain: a set of points with fields of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainConfig {
    /// Its name.
    pub name: String,
    /// Transformer blocks that only this domain goes through, after the physics blocks.
    pub decoder_blocks: usize,
    /// What is predicted at its points.
    pub fields: Vec<Component>,
}

impl DomainConfig {
    /// Components of all fields together.
    pub fn output_dim(&self) -> usize {
        self.fields.iter().map(|field| field.dim).sum()
    }
}

/// The prefix of a field that was asked for at queries.
const QUERY_PREFIX: &str = "query_";

/// Name of a field at the anchors of a domain.
pub(super) fn anchor_field(domain: &str, field: &str) -> String {
    format!("{domain}_{field}")
}

/// Name of a field at the queries of a domain.
pub(super) fn query_field(domain: &str, field: &str) -> String {
    format!("{QUERY_PREFIX}{domain}_{field}")
}

impl AbUptConfig {
    /// Channels of a head.
    pub fn head_dim(&self) -> usize {
        self.hidden_dim.checked_div(self.num_heads).unwrap_or(0)
    }

    /// Components of all conditioning inputs together; 0 without conditioning.
    pub fn condition_dim(&self) -> usize {
        self.condition.iter().map(|input| input.dim).sum()
    }

    /// Whether the network reads a geometry: whether any physics block is a perceiver.
    pub fn uses_geometry(&self) -> bool {
        self.physics_blocks.iter().any(|block| block.kind == PhysicsKind::Perceiver)
    }

    /// Names of the domains.
    pub fn domain_names(&self) -> Vec<String> {
        self.domains.iter().map(|domain| domain.name.clone()).collect()
    }

    /// The entries in which another configuration differs, here and there; `None` if it is the same.
    pub(super) fn difference(&self, other: &Self) -> Option<(String, String)> {
        if self == other {
            return None;
        }
        let entries = |config: &Self| serde_json::to_value(config).unwrap_or_default();
        let (own, others) = (entries(self), entries(other));
        let differing = |one: &Value, other: &Value| {
            let entries = one.as_object().into_iter().flatten().filter(|(key, value)| other.get(key) != Some(value));
            entries.map(|(key, value)| format!("{key} {value}")).collect::<Vec<_>>().join(", ")
        };
        Some((differing(&own, &others), differing(&others, &own)))
    }

    /// How the domains share the weights of a block.
    pub(super) fn sharing(&self, block: PhysicsBlock) -> WeightSharing {
        if !block.untied {
            return WeightSharing::Shared;
        }
        WeightSharing::PerDomain { domains: self.domain_names(), square: self.untied_square_banks.unwrap_or_default() }
    }

    /// Checks that a network can be made of this.
    ///
    /// # Errors
    /// The first entry that cannot work, with what it should be.
    pub fn validate(&self) -> Result<(), AbUptError> {
        let refuse = |field: &str, expected: &str, got: String| Err(AbUptError::config(field, expected, got));
        if self.num_heads == 0 || self.hidden_dim == 0 || !self.hidden_dim.is_multiple_of(self.num_heads) {
            let got = format!("{} with {} heads", self.hidden_dim, self.num_heads);
            return refuse("hidden_dim", "positive and divisible by num_heads", got);
        }
        check_width("hidden_dim", self.hidden_dim)?;
        check_width("mlp_hidden_dim", self.mlp_hidden_dim)?;
        if !(1..=3).contains(&self.position_dim) {
            return refuse("position_dim", "1, 2 or 3", self.position_dim.to_string());
        }
        if !self.head_dim().is_multiple_of(2) || self.head_dim() < 2 * self.position_dim {
            let got = format!("{} for {} coordinates", self.head_dim(), self.position_dim);
            return refuse("head_dim (hidden_dim / num_heads)", "even, with two channels for each coordinate", got);
        }
        check_positive("max_wavelength", self.max_wavelength)?;
        check_positive("layer_norm_eps", self.layer_norm_eps)?;
        self.validate_domains()?;
        self.validate_geometry()?;
        unique("condition", self.condition.iter().map(|input| input.name.clone()))?;
        for Component { name, dim } in &self.condition {
            check_width(&format!("dim of condition '{name}'"), *dim)?;
        }
        Ok(())
    }

    fn validate_domains(&self) -> Result<(), AbUptError> {
        let refuse = |field: &str, expected: &str, got: String| Err(AbUptError::config(field, expected, got));
        if self.domains.is_empty() {
            return refuse("domains", "at least one domain", "none".to_string());
        }
        unique("domains", self.domains.iter().map(|domain| domain.name.clone()))?;
        if let Some(domain) = self.domains.iter().find(|domain| domain.name.is_empty() || domain.name.contains('.')) {
            return refuse("domains", "names that are not empty and have no dot", format!("'{}'", domain.name));
        }
        let names = |domain: &DomainConfig| {
            let name = domain.name.clone();
            let both = |field: &Component| [anchor_field(&name, &field.name), query_field(&name, &field.name)];
            domain.fields.iter().flat_map(both).collect::<Vec<_>>()
        };
        unique("fields", self.domains.iter().flat_map(names))?;
        for DomainConfig { name: domain, fields, .. } in &self.domains {
            if fields.is_empty() {
                return refuse(&format!("fields of '{domain}'"), "at least one field", "none".to_string());
            }
            for Component { name, dim } in fields {
                check_width(&format!("dim of field '{domain}_{name}'"), *dim)?;
            }
        }
        let needs_two =
            |block: &&PhysicsBlock| matches!(block.kind, PhysicsKind::Anchors(AnchorKind::Cross | AnchorKind::Joint));
        if let (1, Some(block)) = (self.domains.len(), self.physics_blocks.iter().find(needs_two)) {
            return refuse("domains", &format!("at least two for a '{block}' block"), "one".to_string());
        }
        Ok(())
    }

    fn validate_geometry(&self) -> Result<(), AbUptError> {
        let refuse = |field: &str, expected: String, got: String| Err(AbUptError::config(field, expected, got));
        let Some(pooling) = &self.supernode_pooling else {
            if self.uses_geometry() {
                let expected = "a configuration, because a physics block is a perceiver".to_string();
                return refuse("supernode_pooling", expected, "none".to_string());
            }
            return Ok(());
        };
        pooling.validate()?;
        if pooling.output_dim() != self.hidden_dim {
            let expected = format!("an output width of {}, the hidden_dim of the network", self.hidden_dim);
            return refuse("supernode_pooling", expected, pooling.output_dim().to_string());
        }
        if pooling.position_dim != self.position_dim {
            let expected = format!("{}, the position_dim of the network", self.position_dim);
            return refuse("supernode_pooling.position_dim", expected, pooling.position_dim.to_string());
        }
        Ok(())
    }
}
