//! What names and shapes tell about an AB-UPT without a configuration.
//!
//! They do not tell the order of the domains and of their fields, whether a block attends to the own anchors, to those of
//! others or to all, and nothing of what has no weights: radius and degree of the pooling, epsilons.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use candle_mixed_attention::models::ab_upt::{Checkpoint, StoredTensor};

/// What an AB-UPT consists of.
pub(super) struct Outline {
    hidden_dim: usize,
    /// Wave numbers of one coordinate.
    wave_numbers: Option<usize>,
    physics_blocks: Vec<String>,
    geometry_blocks: usize,
    condition_dim: Option<usize>,
    domains: Vec<Domain>,
}

struct Domain {
    name: String,
    decoder_blocks: usize,
    components: Option<usize>,
}

impl Outline {
    /// Reads the names; `None` if they are not those of an AB-UPT.
    pub(super) fn of(checkpoint: &Checkpoint) -> Option<Self> {
        let tensors = checkpoint.tensors();
        let names: BTreeSet<&str> = tensors.keys().filter_map(|name| domain_of(name)).collect();
        let first = names.first()?;
        let hidden_dim = *shape(tensors, &format!("domain_biases.{first}.mlp.0.weight"))?.first()?;
        let domain = |name: &&str| Domain {
            name: name.to_string(),
            decoder_blocks: blocks(tensors, &format!("domain_decoder_blocks.{name}.")).len(),
            components: shape(tensors, &format!("domain_decoder_projections.{name}.project.weight"))
                .and_then(|shape| shape.first().copied()),
        };
        let modulation = tensors.iter().find(|(name, _)| name.ends_with(".modulation.project.weight"));
        let physics = blocks(tensors, "physics_blocks.");
        Some(Self {
            hidden_dim,
            wave_numbers: shape(tensors, "rope.omega").and_then(|shape| shape.first().copied()),
            physics_blocks: physics.values().map(ToString::to_string).collect(),
            geometry_blocks: blocks(tensors, "geometry_blocks.").len(),
            condition_dim: modulation.and_then(|(_, tensor)| tensor.shape.get(1).copied()),
            domains: names.iter().map(domain).collect(),
        })
    }
}

type Tensors = BTreeMap<String, StoredTensor>;

fn shape<'a>(tensors: &'a Tensors, name: &str) -> Option<&'a [usize]> {
    tensors.get(name).map(|tensor| tensor.shape.as_slice())
}

/// The domain that a tensor embeds.
fn domain_of(name: &str) -> Option<&str> {
    name.strip_prefix("domain_biases.")?.split('.').next()
}

/// What the names of a block tell.
#[derive(Default)]
struct Block {
    perceiver: bool,
    anchors: bool,
    untied: bool,
}

/// The blocks whose names begin like this, by their indices: as many as there are, whatever the indices are.
fn blocks(tensors: &Tensors, prefix: &str) -> BTreeMap<usize, Block> {
    let mut blocks: BTreeMap<usize, Block> = BTreeMap::new();
    // Names are sorted, so those of one beginning lie together.
    let names = tensors.range(prefix.to_string()..).map_while(|(name, _)| name.strip_prefix(prefix));
    for name in names {
        let Some((index, rest)) = name.split_once('.') else { continue };
        let Ok(index) = index.parse() else { continue };
        let block = blocks.entry(index).or_default();
        block.perceiver |= rest.starts_with("attn.");
        block.anchors |= rest.starts_with("attention_block.");
        block.untied |= rest.ends_with("proj.weight.0");
    }
    blocks
}

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.perceiver, self.anchors) {
            (true, _) => "perceiver",
            (_, true) => "self/cross/joint",
            _ => "unknown",
        })?;
        f.write_str(if self.untied { "_untied" } else { "" })
    }
}

impl fmt::Display for Outline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "width {}", self.hidden_dim)?;
        if let Some(count) = self.wave_numbers {
            writeln!(f, "RoPE with {count} wave numbers per coordinate")?;
        }
        writeln!(f, "physics blocks: {}", self.physics_blocks.join(", "))?;
        writeln!(f, "geometry blocks: {}", self.geometry_blocks)?;
        if let Some(width) = self.condition_dim {
            writeln!(f, "conditions: {width} components")?;
        }
        for Domain { name, decoder_blocks, components } in &self.domains {
            let components = components.map_or("unknown".to_string(), |count| count.to_string());
            writeln!(f, "domain {name}: {decoder_blocks} decoder blocks, fields of {components} components together")?;
        }
        writeln!(f, "A configuration (--config) tells the rest, and whether every tensor fits.")
    }
}
