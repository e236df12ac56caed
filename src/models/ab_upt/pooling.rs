//! Supernode pooling: the points around each supernode, summed up in one token.
//!
//! ```text
//! message of point p to supernode c    m(abspos: [E(p) E(c)]   relpos: [R(δ)]   absrelpos: [E(p) E(c) R(δ)])
//! token of c                           proj [mean or sum over the neighbours of c, E(c)]
//! ```
//!
//! with δ = (c − p, |c − p|), `E` and `R` sine and cosine embeddings, and `m` two linear layers with a GELU between them,
//! one linear layer, or nothing. Input features f of the points, where there are any, join in: `E(p)` becomes
//! `down [E(p) feat(f)]`, or the relative message `down [R(δ) feat(f_p) feat(f_c)]`.
//!
//! Everything is computed in f32 and rounded to the dtype of the network at the end: it runs once for each geometry.
//! What the layers compute is linear up to the GELU and after it, so the part of a message that depends on the point alone
//! is computed once for each point, that of the supernode once for each supernode, and the last layer follows the mean.

use candle_core::{D, DType, Device, Result, Tensor};
use candle_nn::{Linear, Module, VarBuilder};

use super::config::{Aggregation, MessageMode, PoolingConfig, PositionMode};
use super::embedding::SinCosEmbedding;
use super::error::AbUptError;
use super::geometry::Geometry;
use super::mlp::Activation;
use super::neighbours::{NeighbourChoice, Neighbours, neighbours};
use crate::ops::{Messages, is_plain, message_sum, to_dtype};

/// Longest wavelength of the embeddings of the geometry, whatever the network uses elsewhere.
const MAX_WAVELENGTH: f64 = 10_000.0;

/// Messages that are in memory at the same time, unless one supernode has more.
const MESSAGE_BLOCK: usize = 1 << 15;

/// Turns the points of a geometry into one token for each supernode.
#[derive(Debug, Clone)]
pub struct SupernodePooling {
    config: PoolingConfig,
    /// Dtype of the result.
    dtype: DType,
    embedding: SinCosEmbedding,
    relative_embedding: Option<SinCosEmbedding>,
    features: Option<FeatureProjection>,
    message: Message,
    projection: Option<Linear>,
}

/// The layers of a message.
#[derive(Debug, Clone)]
enum Message {
    Identity,
    Linear(Linear),
    Mlp(Linear, Linear),
}

/// The layers that bring input features in.
#[derive(Debug, Clone)]
struct FeatureProjection {
    up: Linear,
    /// From the concatenation of embedding and projected features to `hidden_dim`.
    down: Linear,
}

/// One part of the concatenation that a message is, `hidden_dim` wide, or what a linear layer makes of it.
enum Part {
    /// Depends on the point alone: `[points, width]`.
    Points(Tensor),
    /// Depends on the supernode alone: `[supernodes, width]`.
    Supernodes(Tensor),
    /// Depends on both, so that it is computed block by block.
    Relative(Option<Linear>),
}

/// Messages to consecutive supernodes.
struct Edges {
    /// First supernode and number of supernodes.
    supernodes: (usize, usize),
    /// Point index of each message.
    points: Tensor,
    /// Supernode of each message, counted from the first of the block.
    targets: Tensor,
}

impl SupernodePooling {
    /// Loads the pooling.
    ///
    /// # Errors
    /// A configuration that cannot work; a tensor is missing or has another shape.
    pub fn new(config: &PoolingConfig, vb: VarBuilder) -> Result<Self> {
        config.validate()?;
        let dtype = vb.dtype();
        let vb = vb.set_dtype(DType::F32);
        let (width, coordinates) = (config.hidden_dim, config.position_dim);
        let linear = |name: &str, input: usize| candle_nn::linear(input, width, vb.pp(name).pp("project"));
        let relative = config.pos_mode != PositionMode::AbsPos;
        let features = match config.input_features_dim {
            None => None,
            Some(features) => {
                let parts = if config.pos_mode == PositionMode::RelPos { 3 } else { 2 };
                let up = linear("feature_projection", features)?;
                Some(FeatureProjection { up, down: linear("feature_down_projection", parts * width)? })
            }
        };
        let message = match config.message_mode {
            MessageMode::Identity => Message::Identity,
            MessageMode::Linear => Message::Linear(linear("message", config.message_dim())?),
            MessageMode::Mlp => Message::Mlp(linear("message.0", config.message_dim())?, linear("message.2", width)?),
        };
        let embedding = |name: &str, coordinates| SinCosEmbedding::new(width, coordinates, MAX_WAVELENGTH, vb.pp(name));
        Ok(Self {
            config: config.clone(),
            dtype,
            embedding: embedding("pos_embed", coordinates)?,
            relative_embedding: if relative { Some(embedding("rel_pos_embed", coordinates + 1)?) } else { None },
            features,
            message,
            projection: if config.readd_supernode_pos { Some(linear("proj", 2 * width)?) } else { None },
        })
    }

    /// One token for each supernode, `[batch, supernodes, output_dim]`.
    ///
    /// # Errors
    /// A geometry of another number of coordinates, or whose features are not those of the configuration.
    pub fn forward(&self, geometry: &Geometry) -> Result<Tensor> {
        let features = self.check(geometry)?;
        let positions = geometry.positions();
        let supernodes = Tensor::new(geometry.supernodes(), positions.device())?;
        let (parts, own) = self.parts(positions, &supernodes, features.as_ref())?;
        let neighbours = neighbours(geometry, neighbour_choice(&self.config))?;
        let (parts, bias) = match &self.message {
            Message::Identity => (parts, None),
            Message::Linear(layer) | Message::Mlp(layer, _) => {
                (split(layer, parts, self.config.hidden_dim)?, layer.bias())
            }
        };

        let mut pooled = match (&self.message, parts.as_slice()) {
            (Message::Mlp(..), [Part::Points(of_points), Part::Supernodes(of_supernodes)])
                if is_plain(of_points) && is_plain(of_supernodes) =>
            {
                let of_supernodes = bias.map_or(Ok(of_supernodes.clone()), |bias| of_supernodes.broadcast_add(bias))?;
                let mean = self.config.aggregation == Aggregation::Mean;
                message_sum(
                    of_points,
                    &of_supernodes,
                    Messages { points: &neighbours.points, starts: &neighbours.starts, mean },
                )?
            }
            _ => self.message_blocks(positions, &supernodes, features.as_ref(), &neighbours, &parts, bias)?,
        };
        if let Message::Mlp(_, last) = &self.message {
            pooled = self.last_layer(last, &pooled, &neighbours)?;
        }
        if let Some(projection) = &self.projection {
            pooled = projection.forward(&Tensor::cat(&[&pooled, &own], 1)?)?;
        }
        let shape = (geometry.batch(), geometry.supernodes_per_sample(), self.config.output_dim());
        to_dtype(&pooled.reshape(shape)?, self.dtype)
    }

    /// Messages and their sums or means, block by block.
    fn message_blocks(
        &self,
        positions: &Tensor,
        supernodes: &Tensor,
        features: Option<&Tensor>,
        neighbours: &Neighbours,
        parts: &[Part],
        bias: Option<&Tensor>,
    ) -> Result<Tensor> {
        let mut pooled = Vec::new();
        for block in blocks(neighbours, positions.device())? {
            let relative = self.relative_part(positions, supernodes, features, &block)?;
            let of_block = parts.iter().map(|part| part.of(&block, &relative)).collect::<Result<Vec<_>>>()?;
            let messages = match (&self.message, of_block.as_slice()) {
                (Message::Identity, parts) => Tensor::cat(parts, 1)?,
                (_, [first, others @ ..]) => {
                    let sum = others.iter().try_fold(first.clone(), |sum, part| sum + part)?;
                    bias.map_or(Ok(sum.clone()), |bias| sum.broadcast_add(bias))?
                }
                // A message has at least one part.
                (_, []) => continue,
            };
            let messages = match &self.message {
                Message::Mlp(..) => Activation::Gelu.forward(&messages)?,
                _ => messages,
            };
            pooled.push(self.aggregate(&block, &messages)?);
        }
        Tensor::cat(&pooled, 0)
    }

    /// Checks the geometry and projects its features to `[points, hidden_dim]`.
    fn check(&self, geometry: &Geometry) -> Result<Option<Tensor>> {
        geometry.check_position_dim(self.config.position_dim)?;
        let dims = geometry.features().map(|features| features.dims().to_vec()).unwrap_or_default();
        match (&self.features, geometry.features(), self.config.input_features_dim) {
            (Some(layers), Some(features), Some(width)) if dims.last() == Some(&width) => {
                Ok(Some(layers.up.forward(&to_dtype(features, DType::F32)?.contiguous()?)?))
            }
            (None, None, _) => Ok(None),
            (_, _, width) => {
                let expected = width.map_or("none".to_string(), |width| format!("[points, {width}]"));
                Err(AbUptError::shape("geometry features", expected, &dims).into())
            }
        }
    }

    /// The parts of a message, and the value that is added again at the end, `[supernodes, hidden_dim]`.
    fn parts(&self, positions: &Tensor, supernodes: &Tensor, features: Option<&Tensor>) -> Result<(Vec<Part>, Tensor)> {
        if self.config.pos_mode == PositionMode::RelPos {
            let own = self.embedding.forward(&positions.index_select(supernodes, 0)?)?;
            return Ok((vec![Part::Relative(None)], own));
        }
        let mut embedded = self.embedding.forward(positions)?;
        if let (Some(layers), Some(features)) = (&self.features, features) {
            embedded = layers.down.forward(&Tensor::cat(&[&embedded, features], 1)?)?;
        }
        let own = embedded.index_select(supernodes, 0)?;
        let mut parts = vec![Part::Points(embedded), Part::Supernodes(own.clone())];
        if self.config.pos_mode == PositionMode::AbsRelPos {
            parts.push(Part::Relative(None));
        }
        Ok((parts, own))
    }

    /// The part of the messages of a block that depends on both ends, `[messages, hidden_dim]`; without such a part,
    /// an empty tensor.
    fn relative_part(
        &self,
        positions: &Tensor,
        supernodes: &Tensor,
        features: Option<&Tensor>,
        block: &Edges,
    ) -> Result<Tensor> {
        let Some(embedding) = &self.relative_embedding else {
            return Tensor::zeros((0, self.config.hidden_dim), DType::F32, positions.device());
        };
        let (start, len) = block.supernodes;
        let centres = supernodes.narrow(0, start, len)?.index_select(&block.targets, 0)?;
        let delta = (positions.index_select(&centres, 0)? - positions.index_select(&block.points, 0)?)?;
        let distance = delta.sqr()?.sum_keepdim(D::Minus1)?.sqrt()?;
        let relative = embedding.forward(&Tensor::cat(&[delta, distance], 1)?)?;
        let (Some(layers), Some(features)) = (&self.features, features) else { return Ok(relative) };
        let (of_point, of_centre) = (features.index_select(&block.points, 0)?, features.index_select(&centres, 0)?);
        layers.down.forward(&Tensor::cat(&[relative, of_point, of_centre], 1)?)
    }

    /// Sum or mean of the messages to each supernode of a block.
    fn aggregate(&self, block: &Edges, messages: &Tensor) -> Result<Tensor> {
        let (_, supernodes) = block.supernodes;
        let zeros = Tensor::zeros((supernodes, messages.dim(1)?), DType::F32, messages.device())?;
        let sums = zeros.index_add(&block.targets, messages, 0)?;
        match self.config.aggregation {
            Aggregation::Sum => Ok(sums),
            Aggregation::Mean => {
                let ones = Tensor::ones((messages.dim(0)?, 1), DType::F32, messages.device())?;
                let counts = Tensor::zeros((supernodes, 1), DType::F32, messages.device())?;
                let counts = counts.index_add(&block.targets, &ones, 0)?;
                sums.broadcast_div(&counts.maximum(1f32)?)
            }
        }
    }

    /// The last layer of the messages, after their sum or mean: its bias counts once for each message that went in.
    fn last_layer(&self, layer: &Linear, pooled: &Tensor, neighbours: &Neighbours) -> Result<Tensor> {
        let weighted = Linear::new(layer.weight().clone(), None).forward(pooled)?;
        let Some(bias) = layer.bias() else { return Ok(weighted) };
        let count = |ends: &[usize]| match self.config.aggregation {
            Aggregation::Sum => (ends[1] - ends[0]) as f32,
            Aggregation::Mean => f32::from(u8::from(ends[1] > ends[0])),
        };
        let counts: Vec<f32> = neighbours.starts.windows(2).map(count).collect();
        let counts = Tensor::new(counts, pooled.device())?.unsqueeze(1)?;
        weighted + counts.broadcast_mul(bias)?
    }
}

impl Part {
    /// A linear layer of this part.
    fn through(self, layer: Linear) -> Result<Self> {
        Ok(match self {
            Self::Points(part) => Self::Points(layer.forward(&part)?),
            Self::Supernodes(part) => Self::Supernodes(layer.forward(&part)?),
            Self::Relative(_) => Self::Relative(Some(layer)),
        })
    }

    /// The part for every message of a block, `[messages, width]`.
    fn of(&self, block: &Edges, relative: &Tensor) -> Result<Tensor> {
        match self {
            Self::Points(part) => part.index_select(&block.points, 0),
            Self::Supernodes(part) => {
                let (start, len) = block.supernodes;
                part.narrow(0, start, len)?.index_select(&block.targets, 0)
            }
            Self::Relative(Some(layer)) => layer.forward(relative),
            Self::Relative(None) => Ok(relative.clone()),
        }
    }
}

fn neighbour_choice(config: &PoolingConfig) -> NeighbourChoice {
    match (config.radius, config.k) {
        (_, Some(k)) => NeighbourChoice::Nearest { k },
        (radius, None) => {
            NeighbourChoice::Radius { radius: radius.unwrap_or(0.0) as f32, max_degree: config.max_degree }
        }
    }
}

/// A linear layer of the concatenation of the parts: the parts of its sum, without the bias.
fn split(layer: &Linear, parts: Vec<Part>, width: usize) -> Result<Vec<Part>> {
    let column = |(index, part): (usize, Part)| {
        let weight = layer.weight().narrow(1, index * width, width)?.contiguous()?;
        part.through(Linear::new(weight, None))
    };
    parts.into_iter().enumerate().map(column).collect()
}

/// Cuts the neighbour lists into blocks of whole supernodes.
fn blocks(neighbours: &Neighbours, device: &Device) -> Result<Vec<Edges>> {
    let starts = &neighbours.starts;
    let (mut first, mut blocks) = (0, Vec::new());
    for next in 1..starts.len() {
        // A block ends where the next supernode would make it too long, and at the end.
        let ends = starts.get(next + 1).is_none_or(|&end| end - starts[first] > MESSAGE_BLOCK);
        if ends {
            let points = &neighbours.points[starts[first]..starts[next]];
            let target = |supernode: usize| {
                let messages = starts[supernode + 1] - starts[supernode];
                std::iter::repeat_n((supernode - first) as u32, messages)
            };
            let targets: Vec<u32> = (first..next).flat_map(target).collect();
            blocks.push(Edges {
                supernodes: (first, next - first),
                points: Tensor::new(points, device)?,
                targets: Tensor::new(targets, device)?,
            });
            first = next;
        }
    }
    Ok(blocks)
}
