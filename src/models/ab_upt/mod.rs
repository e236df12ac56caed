//! AB-UPT: fields around a body from its geometry and a few anchor points, at any number of query points.
//!
//! ```text
//! geometry ─ supernode pooling ─ geometry blocks ─┐ keys and values
//! positions ─ sin/cos embedding ─ domain MLP ─ physics blocks ─┬─ decoder blocks of domain 1 ─ fields of domain 1
//!                                              (all domains)   └─ decoder blocks of domain 2 ─ fields of domain 2
//! ```
//!
//! Each domain (surface, volume, …) has anchors and queries. Only anchors are keys, so that the cost is linear in the
//! number of queries and their predictions do not depend on each other. Every attention is the crate's mixed attention.
//!
//! [`AbUpt`] is the network, on tensors in its own units. [`Predictor`] joins it with the statistics of its data: physical
//! units in and out, any number of points in chunks.
//!
//! # Where it differs from the published PyTorch package
//!
//! Besides what the [crate's documentation](crate#where-this-crate-differs-from-the-published-pytorch-package) lists:
//!
//! | case | PyTorch package | here |
//! |---|---|---|
//! | anchors or queries of an unknown domain | ignored | error |
//! | conditions in another order or under other names | taken in the order in which they come | by name, else an error |
//! | a condition `[batch, 1, components]` | squeezed by the network, crash in a block | error |
//! | a later pass with another condition | old keys meet new queries | impossible: the cache holds the condition |
//! | the cache of another network with as many blocks | used | error that says what differs |
//! | a later pass over a domain that had no tokens before | crash | works |
//! | a domain without tokens, or with 0 queries | its fields are absent | its fields have 0 points |
//! | a geometry for a network without perceiver blocks | ignored | error |
//! | perceiver blocks without pooling | fails at the first pass | error when the network is made |
//! | NaN among the positions | NaN among the fields | error |
//! | domains `wing` and `wing_tip` | crash | works |
//! | untied blocks: domains `far_field` and `far_wake` | become one | remain two |
//! | untied blocks: a domain without tokens | crash, or the weights of another | works |
//! | untied blocks: a later pass from the cache | crash | works |
//! | untied blocks: square weights | turned round by the numbers of tokens | as [`SquareBanks`](crate::SquareBanks) says |
//! | weights in f16 or bf16 | crash | works |
//! | feed-forward layers no wider than the tokens | error | works |
//! | transformer blocks with a condition and without biases | error | works |
//! | supernodes that are not sample by sample | become supernodes of other samples | error |
//! | a last sample without supernodes | takes those of others | error |
//! | equally near points among the `k` nearest | unspecified | those of lower index |
//! | input features or fields of width 0 | accepted | error |
//! | names and shapes of a checkpoint that do not fit | error | one error that lists them all |

mod branch;
mod cache;
mod checkpoint;
mod config;
mod embedding;
mod error;
mod feed_forward;
mod finite;
mod geometry;
mod inputs;
mod mlp;
mod model;
mod neighbours;
mod norm;
mod perceiver_block;
mod plans;
mod pooling;
mod predictor;
mod tokens;
mod transformer_block;
mod weights_hash;

pub use cache::{AbUptCache, AbUptFingerprint, KeyShare};
pub use checkpoint::{Checkpoint, StoredTensor, TensorFile};
pub use config::{
    AbUptConfig, Aggregation, Component, DomainConfig, MessageMode, PhysicsBlock, PhysicsKind, PoolingConfig,
    PositionMode,
};
pub use embedding::SinCosEmbedding;
pub use error::{AbUptError, TensorProblem};
pub use geometry::Geometry;
pub use inputs::{AbUptInput, AbUptOutput, Fields};
pub use mlp::{Activation, Mlp};
pub use model::AbUpt;
pub use perceiver_block::{PerceiverBlock, PerceiverBlockConfig};
pub use pooling::SupernodePooling;
pub use predictor::{Chunks, EncodedBody, PredictedFields, Predictor, PredictorInput, sample_indices, sample_points};
pub use transformer_block::{BlockKeys, TransformerBlock, TransformerBlockConfig};
