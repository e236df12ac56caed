//! Structured ("mixed") attention for [candle]: some tokens of a sequence attend to some others, group by group, in one
//! fused launch on the CPU, CUDA and Metal.
//!
//! Networks that predict physics on large meshes compute a few thousand *anchor* points with full attention and every other
//! point, the *queries*, by attention to the anchors alone; AB-UPT ([Alkin et al. 2025][abupt]) does so for the surface of a
//! car and the air around it at once, up to hundreds of millions of points. Their attention is many small attentions over
//! parts of one sequence, which frameworks run as slices, copies and one call each. Here an [`AttentionPlan`] says once which
//! groups attend to which, and a kernel in the manner of FlashAttention ([Dao et al. 2022][flash]) walks through all of it:
//! no splitting, no concatenation, no score matrix.
//!
//! [candle]: https://github.com/huggingface/candle
//! [abupt]: https://arxiv.org/abs/2502.09692
//! [flash]: https://arxiv.org/abs/2205.14135
//!
//! # A functional op
//!
//! [`mixed_attention()`] takes queries, keys and values `[batch, heads, tokens, head_dim]` in any strides.
//!
//! ```
//! use candle_core::{Device, Tensor};
//! use candle_mixed_attention::{AttentionOptions, AttentionPattern, AttentionPlan, TokenSpec, mixed_attention};
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
//! let qkv = Tensor::randn(0f32, 1., (3, 1, 4, plan.len(), 16), &Device::Cpu)?;
//! let y = mixed_attention(&qkv.get(0)?, &qkv.get(1)?, &qkv.get(2)?, &plan, &AttentionOptions::default())?;
//! assert_eq!(y.dims(), [1, 4, 290, 16]);
//! # Ok::<(), candle_core::Error>(())
//! ```
//!
//! # A layer
//!
//! [`MixedAttention`] projects, rotates ([`Rope`]), attends and projects back; bound to a plan it is a
//! [`Module`](candle_core::Module) like any other. [`modules`] has its relatives.
//!
//! ```
//! use candle_core::{DType, Device, Module, Tensor};
//! use candle_mixed_attention::{AttentionPattern, AttentionPlan, MixedAttention, MixedAttentionConfig, TokenSpec};
//! use candle_nn::{VarBuilder, VarMap};
//!
//! let plan = AttentionPlan::new(
//!     [TokenSpec::new("anchors", 100), TokenSpec::new("queries", 50)],
//!     [AttentionPattern::queries(["anchors", "queries"]).attend_to(["anchors"])],
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
//! # A cache
//!
//! Anchors are computed once; any number of queries follow, at a time and in chunks that suit you.
//!
//! ```
//! # use candle_core::{DType, Device, Tensor};
//! # use candle_mixed_attention::{AttentionPattern, AttentionPlan, MixedAttention, MixedAttentionConfig, TokenSpec};
//! # use candle_nn::{VarBuilder, VarMap};
//! use candle_mixed_attention::AttentionOptions;
//!
//! let plan = AttentionPlan::new(
//!     [TokenSpec::new("anchors", 100), TokenSpec::new("queries", 50)],
//!     [AttentionPattern::queries(["anchors", "queries"]).attend_to(["anchors"])],
//! )?;
//! # let vars = VarMap::new();
//! # let vb = VarBuilder::from_varmap(&vars, DType::F32, &Device::Cpu);
//! # let attention = MixedAttention::new(&MixedAttentionConfig::new(64, 4), vb)?;
//! # let x = Tensor::randn(0f32, 1., (1, plan.len(), 64), &Device::Cpu)?;
//! let options = AttentionOptions::default().cache_groups(["anchors"]);
//! let (y, cache) = attention.forward_and_cache(&x, &plan, &options)?;
//!
//! let step = plan.cached_queries("queries", 50)?;
//! let again = attention.forward_from_cache(&x.narrow(1, 100, 50)?, &step, &cache, &options)?;
//! let difference = (again - y.narrow(1, 100, 50)?)?.abs()?.max_all()?.to_scalar::<f32>()?;
//! assert!(difference < 1e-5);
//! # Ok::<(), candle_core::Error>(())
//! ```
//!
//! # A predictor
//!
//! [`models::ab_upt`] is the whole AB-UPT: checkpoints of the PyTorch package in, fields in physical units out.
//!
//! ```no_run
//! use candle_core::{DType, Device};
//! use candle_mixed_attention::models::Normalisation;
//! use candle_mixed_attention::models::ab_upt::{AbUptConfig, Checkpoint, Predictor, PredictorInput};
//!
//! let config = AbUptConfig::read("model.json")?;
//! let network = Checkpoint::open("model.safetensors")?.load(&config, DType::F32, &Device::Cpu)?;
//! let predictor = Predictor::new(network, &Normalisation::read("model.json")?)?;
//!
//! # let (geometry, supernodes, surface, volume): (Vec<f32>, Vec<u32>, Vec<f32>, Vec<f32>) = Default::default();
//! let input = PredictorInput::new()
//!     .geometry(&geometry, &supernodes)
//!     .anchors("surface", &surface)
//!     .anchors("volume", &volume);
//! let body = predictor.encode(&input)?;
//! let velocity: Vec<f32> = body.predict("volume", &[0.5, 0.0, 1.2])?.values("velocity")?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Features
//!
//! | feature | what it adds |
//! |---|---|
//! | none | the CPU: AVX-512, AVX2, NEON or plain code, chosen at run time; `simd128` in WebAssembly that is compiled for it |
//! | `cuda` | NVIDIA GPUs since Ampere; needs the CUDA toolkit, version 12 or later, to build |
//! | `metal` | Apple GPUs since family Apple7 |
//! | `accelerate`, `mkl` | projections through Apple's Accelerate framework or Intel MKL |
//! | `emulate` | tests that execute the GPU kernels on the CPU; for work on the crate itself |
//!
//! # Environment variables
//!
//! | variable | when | meaning |
//! |---|---|---|
//! | `MIXED_ATTENTION_SIMD` | run time | `scalar`, `avx2`, `avx512` …: another [`SimdLevel`] than the fastest of the CPU |
//! | `RAYON_NUM_THREADS` | run time | threads of the CPU kernels |
//! | `NVCC`, `CUDA_HOME`, `CUDA_PATH`, `CUDA_ROOT`, `CUDA_TOOLKIT_ROOT_DIR` | build, with `cuda` | where the toolkit is |
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
//! | domain names of which one starts another (`wing`, `wing_tip`) | crash | works: the longest name wins |
//! | a token named `surfaceX` with a domain `surface` | belongs to it | error: `_` must follow |
//! | group names | four are allowed | any |
//! | padding of batch 1 with two equally large patterns | crash | works |
//! | 0 tokens with RoPE | crash | works |
#![deny(missing_docs, missing_debug_implementations, unreachable_pub)]

mod attention;
mod cache;
mod checks;
mod deprecated;
mod element;
mod error;
mod files;
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
mod scratch;
mod simd;
mod through_candle;
mod transfer;

pub use attention::options::{AttentionOptions, Backend};
pub use attention::part::AttentionPart;
pub use attention::{mixed_attention, mixed_attention_cached, mixed_attention_part, supports};
pub use cache::{CacheFingerprint, KvCache};
pub use candle_core;
#[allow(deprecated, reason = "the alias of one version")]
pub use deprecated::branch_of;
pub use error::{AnchorError, AttentionError, PlanError, Unsupported};
pub use modules::{
    AllKeys, AnchorAttention, AnchorAttentionConfig, AnchorKind, AttentionParts, BoundAttention, DomainRuns,
    DotProductAttention, DotProductAttentionConfig, KeyExchange, LocalExchange, MixedAttention, MixedAttentionConfig,
    PerceiverAttention, PerceiverAttentionConfig, SquareBanks, UntiedLinear, WeightSharing, anchor_patterns, domain_of,
};
pub use padding::KeyPadding;
pub use plan::{AttentionPattern, AttentionPlan, AttentionWindow, BatchPlan, TokenSpec};
pub use rope::{Rope, RopeConfig, RopeFrequencies, RopeLayout, wave_numbers};
pub use simd::{SimdLevel, UnknownSimdLevel};
