//! Attention layers with weights: projections, plan, fused op, output projection.
//!
//! All of them are [`MixedAttention`] or the fused op under a plan: anchor attention makes its patterns from domain
//! names, dot-product attention is a plan of one group, perceiver attention a plan whose keys are all cached.

mod anchor;
mod domains;
mod dot_product;
mod exchange;
mod mixed;
mod parts;
mod perceiver;
pub(crate) mod projection;
mod sharing;
mod untied;

pub use anchor::{AnchorAttention, AnchorAttentionConfig, AnchorKind, anchor_patterns};
pub use domains::{DomainRuns, domain_of};
pub use dot_product::{DotProductAttention, DotProductAttentionConfig};
pub use exchange::{AllKeys, KeyExchange, LocalExchange};
pub use mixed::{BoundAttention, MixedAttention, MixedAttentionConfig};
pub use parts::AttentionParts;
pub use perceiver::{PerceiverAttention, PerceiverAttentionConfig};
pub use sharing::{SquareBanks, WeightSharing};
pub use untied::UntiedLinear;
