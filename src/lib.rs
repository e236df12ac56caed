//! Structured ("mixed") attention for candle: the attention that anchored neural-physics models are made of.
//!
//! Tokens come in named groups ([`TokenSpec`]), and [`AttentionPattern`]s say which groups attend to which. An
//! [`AttentionPlan`] checks both once; [`mixed_attention()`] and [`MixedAttention`] then run all patterns in one fused
//! launch: no splitting, no concatenation, no score matrix.
//!
//! ```
//! use candle_core::{DType, Device, Module, Tensor};
//! use candle_mixed_attention::{AttentionPattern, AttentionPlan, MixedAttention, MixedAttentionConfig, TokenSpec};
//! use candle_nn::{VarBuilder, VarMap};
//!
//! let plan = AttentionPlan::new(
//!     [
//!         TokenSpec::new("surface_anchors", 100), TokenSpec::new("surface_queries", 50),
//!         TokenSpec::new("volume_anchors", 80), TokenSpec::new("volume_queries", 60),
//!     ],
//!     [
//!         AttentionPattern::queries(["surface_anchors", "surface_queries"]).attend_to(["surface_anchors"]),
//!         AttentionPattern::queries(["volume_anchors", "volume_queries"]).attend_to(["volume_anchors"]),
//!     ],
//! )?;
//! let vars = VarMap::new();
//! let vb = VarBuilder::from_varmap(&vars, DType::F32, &Device::Cpu);
//! let attention = MixedAttention::new(&MixedAttentionConfig::new(64, 4), vb)?;
//! let x = Tensor::randn(0f32, 1., (1, plan.len(), 64), &Device::Cpu)?;
//! let y = attention.bind(&plan).forward(&x)?;
//! assert_eq!(y.dims(), x.dims());
//! # Ok::<(), candle_core::Error>(())
//! ```
//!
//! # Where this crate differs from the published PyTorch package
//!
//! | case | PyTorch package | here |
//! |---|---|---|
//! | two token specs of one name | the second group's tokens replace the first's | error |
//! | a cache is given but no group is cached | the cache is ignored | error |
//! | RoPE frequencies of one token for many | broadcast | error |
//! | RoPE frequencies for a perceiver without RoPE | ignored | error |
//! | keys from the cache and from the input in one pattern | crash | works |
//! | padding and a cache | refused | works: a cache carries its own padding; refused only where it would be ignored |
//! | NaN in a masked token | spreads through the values | no influence |
//! | branch names of which one starts another (`wing`, `wing_tip`) | crash | works: the longest name wins |
//! | a token named `surfaceX` with a branch `surface` | belongs to it | error: `_` must follow |
//! | group names | four are allowed | any |
//! | padding of batch 1 with two equally large patterns | crash | works |
//! | 0 tokens with RoPE | crash | works |
#![deny(missing_docs)]

mod attention;
mod cache;
mod error;
#[doc(hidden)]
pub mod kernels;
mod lock;
#[cfg(feature = "metal")]
mod metal;
pub mod models;
pub mod modules;
mod ops;
mod padding;
pub mod plan;
mod recent;
mod rope;

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
pub use plan::{AttentionPattern, AttentionPlan, TokenSpec};
pub use rope::{Rope, RopeConfig, RopeFrequencies, wave_numbers};
