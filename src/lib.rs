//! Structured ("mixed") attention for candle.

mod attention;
mod cache;
mod cache_file;
mod error;
pub mod models;
pub mod modules;
mod padding;
mod pattern;
pub mod plan;
mod rope;
mod tokens;

pub use attention::{
    AttentionOptions, Backend, SimdLevel, UnknownSimdLevel, mixed_attention, mixed_attention_cached, supports,
};
pub use cache::{CacheFingerprint, KvCache};
pub use candle_core;
pub use error::{AnchorError, AttentionError, PlanError, Unsupported};
pub use modules::{
    AnchorAttention, AnchorAttentionConfig, AnchorKind, BoundAttention, DomainRuns, DotProductAttention,
    DotProductAttentionConfig, MixedAttention, MixedAttentionConfig, PerceiverAttention, PerceiverAttentionConfig,
    SquareBanks, UntiedLinear, WeightSharing, anchor_patterns, branch_of,
};
pub use padding::KeyPadding;
pub use pattern::AttentionPattern;
pub use plan::AttentionPlan;
pub use rope::{Rope, RopeConfig, RopeFrequencies, wave_numbers};
pub use tokens::TokenSpec;
