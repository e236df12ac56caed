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

mod cache;
mod checkpoint;
mod config;
mod embedding;
mod error;
mod feed_forward;
mod geometry;
mod inputs;
mod mlp;
mod model;
mod neighbours;
mod norm;
mod perceiver_block;
mod pooling;
mod predictor;
mod residual;
mod tokens;
mod transformer_block;
mod weights_hash;

pub use cache::{AbUptCache, AbUptFingerprint};
pub use checkpoint::{Checkpoint, CheckpointError, StoredTensor, TensorProblem};
pub use config::{AbUptConfig, Component, DomainConfig, PhysicsBlock, PhysicsKind};
pub use embedding::SinCosEmbedding;
pub use error::AbUptError;
pub use geometry::Geometry;
pub use inputs::{AbUptInput, AbUptOutput, Fields};
pub use mlp::{Activation, Mlp};
pub use model::AbUpt;
pub use perceiver_block::{PerceiverBlock, PerceiverBlockConfig};
pub use pooling::{Aggregation, MessageMode, PoolingConfig, PositionMode, SupernodePooling};
pub use predictor::{
    Chunks, EncodedBody, PredictedFields, Predictor, PredictorError, PredictorInput, sample_indices, sample_points,
};
pub use transformer_block::{KeySource, TransformerBlock, TransformerBlockConfig};
