//! The network.

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::{Linear, VarBuilder};

use super::cache::{AbUptCache, Identity, KeyShare};
use super::config::{AbUptConfig, Component, DomainConfig, PhysicsKind, anchor_field, query_field};
use super::embedding::SinCosEmbedding;
use super::error::AbUptError;
use super::geometry::Geometry;
use super::inputs::{AbUptInput, AbUptOutput, Fields, resolve_queries};
use super::mlp::{Activation, Mlp};
use super::perceiver_block::{PerceiverBlock, PerceiverBlockConfig};
use super::plans::AnchorPlans;
use super::pooling::SupernodePooling;
use super::tokens::{ANCHOR_SUFFIX, DomainTokens};
use super::transformer_block::{BlockKeys, TransformerBlock, TransformerBlockConfig};
use super::weights_hash::weights_hash;
use crate::attention::options::{AttentionOptions, Backend};
use crate::cache::KvCache;
use crate::modules::{AllKeys, AnchorKind, DotProductAttention, KeyExchange};
use crate::ops::to_dtype;
use crate::ops::{Epilogue, linear};
use crate::rope::{Rope, RopeConfig, RopeFrequencies};
use crate::simd::SimdLevel;
use crate::transfer::to_device;

/// Added to the variance by the layer norms of perceiver blocks, whatever the configuration says.
const PERCEIVER_EPS: f64 = 1e-6;

/// An anchored-branched universal physics transformer (AB-UPT, Alkin et al., 2025, arXiv:2502.09692).
///
/// A first [`forward`](Self::forward) encodes the geometry and the anchors of every domain and predicts the fields there,
/// and at queries if there are any. It returns a cache, by which [`forward_from_cache`](Self::forward_from_cache) predicts the
/// fields at any number of further queries. A query changes nothing but its own prediction, so both ways give the same.
///
/// Positions are read in f32 whatever the dtype of the network, and so are the tokens between the blocks, where f16 and
/// bf16 would round away what a block adds. Loaded from a checkpoint by
/// [`Checkpoint::load`](super::Checkpoint::load).
#[derive(Debug, Clone)]
pub struct AbUpt {
    config: AbUptConfig,
    dtype: DType,
    device: Device,
    /// Backend and instruction set of every attention.
    attention: AttentionOptions,
    rope: Rope,
    embedding: SinCosEmbedding,
    domain_biases: Vec<Mlp>,
    geometry: Option<GeometryEncoder>,
    physics: Vec<PhysicsLayer>,
    physics_plans: AnchorPlans,
    decoders: Vec<DomainDecoder>,
    weights_hash: String,
    /// Of the processes that hold the keys of anchors together.
    exchange: Arc<dyn KeyExchange>,
}

#[derive(Debug, Clone)]
enum PhysicsLayer {
    Anchors(AnchorKind, TransformerBlock),
    Perceiver(PerceiverBlock),
}

#[derive(Debug, Clone)]
struct GeometryEncoder {
    pooling: SupernodePooling,
    blocks: Vec<TransformerBlock>,
}

#[derive(Debug, Clone)]
struct DomainDecoder {
    domain: DomainConfig,
    plans: AnchorPlans,
    blocks: Vec<TransformerBlock>,
    /// In f32.
    projection: Linear,
}

/// The supernodes after the geometry blocks.
struct EncodedGeometry {
    /// `[batch, supernodes, hidden_dim]`, f32.
    tokens: Tensor,
    frequencies: RopeFrequencies,
}

/// What the blocks of a pass share.
struct Pass<'a> {
    tokens: DomainTokens,
    frequencies: RopeFrequencies,
    condition: Option<&'a Tensor>,
    geometry: Option<EncodedGeometry>,
    cache: Option<&'a AbUptCache>,
}

/// The keys and values that a first pass keeps: of each physics block, and of each decoder block of each domain.
type KeptKeys = (Vec<KvCache>, Vec<Vec<KvCache>>);

impl AbUpt {
    /// Loads a network in the dtype of `vb`: f32, f16 or bf16. The names are those of the published checkpoints.
    ///
    /// # Errors
    /// A configuration that cannot work, another dtype; a tensor is missing or has another shape.
    pub fn new(config: &AbUptConfig, vb: VarBuilder) -> Result<Self> {
        config.validate()?;
        let dtype = vb.dtype();
        if !matches!(dtype, DType::F32 | DType::F16 | DType::BF16) {
            return Err(AbUptError::config("dtype", "f32, f16 or bf16", dtype.as_str()).into());
        }
        let &AbUptConfig { hidden_dim: width, num_heads, mlp_hidden_dim, position_dim, max_wavelength, .. } = config;
        let condition_dim = Some(config.condition_dim()).filter(|&dim| dim > 0);
        let transformer = TransformerBlockConfig {
            hidden_dim: width,
            num_heads,
            mlp_hidden_dim,
            condition_dim,
            layer_scale: config.layer_scale,
            bias: config.bias,
            eps: config.layer_norm_eps,
            use_rope: true,
        };
        let perceiver = PerceiverBlockConfig {
            hidden_dim: width,
            num_heads,
            mlp_hidden_dim,
            kv_dim: None,
            condition_dim,
            layer_scale: false,
            bias: true,
            eps: PERCEIVER_EPS,
            use_rope: true,
        };
        let rope = RopeConfig { position_dim, max_wavelength, ..RopeConfig::new(config.head_dim()) };

        let bias =
            |domain: &str| Mlp::new((width, width, width), 0, Activation::Gelu, vb.pp("domain_biases").pp(domain));
        let mut physics = Vec::with_capacity(config.physics_blocks.len());
        for (index, block) in config.physics_blocks.iter().enumerate() {
            let (sharing, vb) = (config.sharing(*block), vb.pp("physics_blocks").pp(index));
            physics.push(match block.kind {
                PhysicsKind::Anchors(kind) => {
                    PhysicsLayer::Anchors(kind, TransformerBlock::anchored(&transformer, &sharing, vb)?)
                }
                PhysicsKind::Perceiver => PhysicsLayer::Perceiver(PerceiverBlock::new(&perceiver, &sharing, vb)?),
            });
        }
        let geometry = match &config.supernode_pooling {
            Some(pooling) if config.uses_geometry() => {
                let block = |index| TransformerBlock::new(&transformer, vb.pp("geometry_blocks").pp(index));
                let pooling = SupernodePooling::new(pooling, vb.pp("encoder").set_dtype(DType::F32))?;
                Some(GeometryEncoder { pooling, blocks: (0..config.geometry_depth).map(block).collect::<Result<_>>()? })
            }
            _ => None,
        };
        let mut decoders = Vec::with_capacity(config.domains.len());
        for domain in &config.domains {
            let (blocks, name) = (vb.pp("domain_decoder_blocks").pp(&domain.name), &domain.name);
            let block = |index| TransformerBlock::anchored(&transformer, &Default::default(), blocks.pp(index));
            let projection = vb.pp("domain_decoder_projections").pp(name).pp("project").set_dtype(DType::F32);
            decoders.push(DomainDecoder {
                domain: domain.clone(),
                plans: AnchorPlans::new([name.clone()]),
                blocks: (0..domain.decoder_blocks).map(block).collect::<Result<_>>()?,
                projection: candle_nn::linear(width, domain.output_dim(), projection)?,
            });
        }
        let weights_hash = weights_hash(decoders.iter().map(|decoder| &decoder.projection))?;
        Ok(Self {
            config: config.clone(),
            dtype,
            device: vb.device().clone(),
            attention: AttentionOptions::default(),
            rope: Rope::load(&rope, vb.pp("rope"))?,
            embedding: SinCosEmbedding::new(width, position_dim, max_wavelength, vb.pp("pos_embed"))?,
            domain_biases: config.domains.iter().map(|domain| bias(&domain.name)).collect::<Result<_>>()?,
            geometry,
            physics,
            physics_plans: AnchorPlans::new(config.domain_names()),
            decoders,
            weights_hash,
            exchange: Arc::new(AllKeys),
        })
    }

    /// Makes this network one of several, each on another device or process, that keep the keys and values of a share of the
    /// anchors each: for more anchors than one device has memory for.
    ///
    /// Every pass is then one of all of them together: they are given the same input in the same order, and all of them
    /// return the fields at all anchors and queries. The cache is that of a share of the anchors, while the geometry, whose
    /// supernodes are few, is kept by each.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use candle_core::Result;
    /// # use candle_mixed_attention::LocalExchange;
    /// # use candle_mixed_attention::models::ab_upt::{AbUpt, AbUptInput, AbUptOutput};
    /// # fn example(on_each_device: &[AbUpt], input: &AbUptInput) -> Vec<Result<AbUptOutput>> {
    /// let exchanges = LocalExchange::connect(on_each_device.len());
    /// std::thread::scope(|scope| {
    ///     let start = |(network, exchange): (&AbUpt, _)| {
    ///         let network = network.clone().with_exchange(Arc::new(exchange));
    ///         scope.spawn(move || network.forward(input))
    ///     };
    ///     let threads: Vec<_> = on_each_device.iter().zip(exchanges).map(start).collect();
    ///     threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    /// })
    /// # }
    /// ```
    pub fn with_exchange(mut self, exchange: Arc<dyn KeyExchange>) -> Self {
        self.exchange = exchange;
        self
    }

    /// Chooses the implementation of every attention and, for tests and comparisons, the instruction set of the fused CPU
    /// kernel.
    pub fn with_backend(mut self, backend: Backend, simd: Option<SimdLevel>) -> Self {
        let options = AttentionOptions::default().backend(backend);
        self.attention = match simd {
            Some(level) => options.simd(level),
            None => options,
        };
        self
    }

    /// The configuration.
    pub fn config(&self) -> &AbUptConfig {
        &self.config
    }

    /// Dtype of the weights and of the predicted fields.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Device of the weights and of the predicted fields. Inputs may be on any.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The fields at the anchors of every domain and at the queries that were given, and the cache for more queries.
    ///
    /// # Errors
    /// No anchors; unknown domains or conditions; a geometry or condition that is missing or not expected; shapes and
    /// batch sizes that do not fit; NaN or infinite positions and conditions.
    pub fn forward(&self, input: &AbUptInput) -> Result<AbUptOutput> {
        let first = input.resolve(&self.config)?;
        let condition = first.condition.as_ref().map(|condition| to_device(condition, &self.device)).transpose()?;
        let tokens = DomainTokens::first(&self.config, first.batch, &first.anchors, &first.queries, &self.device)?;
        let geometry = match (&self.geometry, first.geometry) {
            (Some(encoder), Some(geometry)) => Some(self.encode_geometry(encoder, geometry, condition.as_ref())?),
            _ => None,
        };
        let frequencies = self.rope.frequencies(tokens.positions())?;
        let pass = Pass { tokens, frequencies, condition: condition.as_ref(), geometry, cache: None };
        let (fields, (physics, decoders)) = self.run(&pass)?;
        let fingerprint = self.identity().of_batch(first.batch);
        Ok(AbUptOutput { fields, cache: AbUptCache { fingerprint, physics, decoders, condition } })
    }

    /// The fields at further queries, given as (domain, positions `[batch, queries, position_dim]`), by the cache of a
    /// first pass. The geometry and condition are those of the first pass.
    ///
    /// ```no_run
    /// # use candle_core::{DType, Device, Tensor};
    /// # use candle_mixed_attention::models::ab_upt::{AbUptInput, Checkpoint};
    /// # let (device, config) = (Device::Cpu, serde_json::from_str("{}").unwrap());
    /// let model = Checkpoint::open("model.safetensors")?.load(&config, DType::F32, &device)?;
    /// let anchors = Tensor::rand(0f32, 1000., (1, 512, 3), &device)?;
    /// let output = model.forward(&AbUptInput::new().anchors("surface", &anchors))?;
    /// let queries = Tensor::rand(0f32, 1000., (1, 100_000, 3), &device)?;
    /// let fields = model.forward_from_cache([("surface", queries)], &output.cache)?;
    /// println!("{}", fields.at_queries("surface", "pressure")?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// No queries; unknown domains; shapes and batch sizes that do not fit; NaN or infinite positions; a cache of another
    /// network or on another device.
    pub fn forward_from_cache<S: Into<String>>(
        &self,
        queries: impl IntoIterator<Item = (S, Tensor)>,
        cache: &AbUptCache,
    ) -> Result<Fields> {
        self.check_cache(cache)?;
        let queries: BTreeMap<String, Tensor> = queries.into_iter().map(|(name, value)| (name.into(), value)).collect();
        let queries = resolve_queries(&self.config, &queries, cache.batch())?;
        let tokens = DomainTokens::later(&self.config, cache.batch(), &queries, &self.device)?;
        let frequencies = self.rope.frequencies(tokens.positions())?;
        let condition = cache.condition.as_ref();
        let pass = Pass { tokens, frequencies, condition, geometry: None, cache: Some(cache) };
        Ok(self.run(&pass)?.0)
    }

    /// Checks that a cache is one of this network.
    pub(super) fn check_cache(&self, cache: &AbUptCache) -> std::result::Result<(), AbUptError> {
        cache.check(&self.identity())
    }

    fn identity(&self) -> Identity<'_> {
        let share = KeyShare { rank: self.exchange.rank(), ranks: self.exchange.ranks() };
        Identity { config: &self.config, weights: &self.weights_hash, dtype: self.dtype, share }
    }

    /// The keys of a block of anchors in a pass.
    fn keys<'a>(&'a self, cached: Option<&'a KvCache>) -> BlockKeys<'a> {
        let exchange = self.exchange.as_ref();
        cached.map_or(BlockKeys::Keep(exchange), |cache| BlockKeys::Cache(cache, exchange))
    }

    fn encode_geometry(
        &self,
        encoder: &GeometryEncoder,
        geometry: &Geometry,
        condition: Option<&Tensor>,
    ) -> Result<EncodedGeometry> {
        let geometry = geometry.to_device(&self.device)?;
        let frequencies = self.rope.frequencies(&geometry.supernode_positions()?)?;
        let mut tokens = encoder.pooling.forward(&geometry)?;
        let plan = DotProductAttention::plan(geometry.supernodes_per_sample())?;
        let options = self.attention.clone().rope(&frequencies);
        for block in &encoder.blocks {
            (tokens, _) = block.forward(&tokens, &plan, BlockKeys::Input, condition, &options)?;
        }
        Ok(EncodedGeometry { tokens, frequencies })
    }

    fn run(&self, pass: &Pass<'_>) -> Result<(Fields, KeptKeys)> {
        let (x, physics) = self.run_physics(pass, self.embed(&pass.tokens)?)?;
        let (mut fields, mut decoders) = (Fields::default(), Vec::with_capacity(self.decoders.len()));
        for index in 0..self.decoders.len() {
            let (start, len) = pass.tokens.range(index);
            let (decoded, kept) = self.decode(pass, index, &x.narrow(1, start, len)?)?;
            decoders.push(kept);
            self.collect_fields(pass, index, &decoded, &mut fields)?;
        }
        Ok((fields, (physics, decoders)))
    }

    /// The input tokens in f32: the embedded positions of each domain through the layers of that domain.
    fn embed(&self, tokens: &DomainTokens) -> Result<Tensor> {
        let embedded = self.embedding.forward(tokens.positions())?;
        let mut parts = Vec::with_capacity(self.domain_biases.len());
        for (domain, bias) in self.domain_biases.iter().enumerate() {
            let (start, len) = tokens.range(domain);
            if tokens.batch() * len > 0 {
                parts.push(bias.forward(&embedded.narrow(1, start, len)?.contiguous()?)?);
            }
        }
        let tokens = if parts.is_empty() { embedded } else { Tensor::cat(&parts, 1)? };
        to_dtype(&tokens, DType::F32)
    }

    /// All tokens through the physics blocks, and what a first pass keeps of each.
    fn run_physics(&self, pass: &Pass<'_>, mut x: Tensor) -> Result<(Tensor, Vec<KvCache>)> {
        let groups = pass.tokens.groups();
        let options = self.attention.clone().rope(&pass.frequencies).cache_groups(pass.tokens.anchor_groups());
        let mut kept = Vec::new();
        for (index, layer) in self.physics.iter().enumerate() {
            let cached = pass.cache.and_then(|cache| cache.physics.get(index));
            match layer {
                PhysicsLayer::Anchors(kind, block) => {
                    let plan = self.physics_plans.of(*kind, groups)?;
                    let new;
                    (x, new) = block.forward(&x, &plan, self.keys(cached), pass.condition, &options)?;
                    kept.extend(new);
                }
                PhysicsLayer::Perceiver(block) => {
                    let source = match (cached, &pass.geometry) {
                        (Some(cached), _) => cached.clone(),
                        (None, Some(EncodedGeometry { tokens, frequencies })) => {
                            block.encode(tokens, Some(frequencies), pass.condition)?
                        }
                        (None, None) => return Err(AbUptError::GeometryMissing.into()),
                    };
                    x = block.forward(&x, groups, &source, pass.condition, &options)?;
                    kept.push(source);
                }
            }
        }
        Ok((x, kept))
    }

    /// The tokens of one domain through its decoder, to `[batch, tokens, components of all fields]`.
    fn decode(&self, pass: &Pass<'_>, index: usize, tokens: &Tensor) -> Result<(Tensor, Vec<KvCache>)> {
        let DomainDecoder { domain, plans, blocks, projection } = &self.decoders[index];
        let (start, len) = pass.tokens.range(index);
        let plan = plans.of(AnchorKind::Own, pass.tokens.groups_of(index))?;
        let anchors = [format!("{}{ANCHOR_SUFFIX}", domain.name)];
        let options = self.attention.clone().rope(&pass.frequencies.narrow(start, len)?).cache_groups(anchors);
        let (mut x, mut kept) = (tokens.clone(), Vec::new());
        for (block_index, block) in blocks.iter().enumerate() {
            let cached = pass.cache.and_then(|cache| cache.decoders.get(index)?.get(block_index));
            let new;
            (x, new) = block.forward(&x, &plan, self.keys(cached), pass.condition, &options)?;
            kept.extend(new);
        }
        Ok((to_dtype(&linear(projection, &x, Epilogue::None)?, self.dtype)?, kept))
    }

    /// Cuts the decoded values of one domain into its fields.
    fn collect_fields(&self, pass: &Pass<'_>, index: usize, decoded: &Tensor, fields: &mut Fields) -> Result<()> {
        let DomainConfig { name: domain, fields: components, .. } = &self.decoders[index].domain;
        let (anchors, (_, tokens)) = (pass.tokens.anchors(index), pass.tokens.range(index));
        let mut start = 0;
        for Component { name, dim } in components {
            let values = decoded.narrow(2, start, *dim)?;
            start += dim;
            if pass.cache.is_none() {
                fields.push(anchor_field(domain, name), values.narrow(1, 0, anchors)?);
            }
            if pass.tokens.has_queries(index) {
                fields.push(query_field(domain, name), values.narrow(1, anchors, tokens - anchors)?);
            }
        }
        Ok(())
    }
}
