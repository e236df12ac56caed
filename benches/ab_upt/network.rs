//! The network, weights and inputs that are measured.

use std::collections::HashMap;

use candle_core::{DType, Device, Result, Tensor};
use candle_mixed_attention::models::ab_upt::{AbUpt, AbUptConfig, AbUptInput, Geometry};
use candle_nn::{VarBuilder, VarMap};

/// Points of the geometry.
pub const POINTS: usize = 16_384;
/// Supernodes among them.
pub const SUPERNODES: usize = 2_048;
/// Anchors of each domain.
pub const ANCHORS: usize = 2_048;
/// Queries of each domain.
pub const QUERIES: usize = 4_096;
/// The domains.
pub const DOMAINS: [&str; 2] = ["surface", "volume"];

/// Hidden 192 in 3 heads, 8 physics blocks, 2 decoder blocks for each domain.
pub const CONFIG: &str = r#"{
    "hidden_dim": 192, "num_heads": 3, "mlp_hidden_dim": 768,
    "physics_blocks": ["perceiver", "self", "cross", "self", "cross", "self", "cross", "joint"],
    "geometry_depth": 1,
    "supernode_pooling": {"hidden_dim": 192, "radius": 25.0, "max_degree": 32},
    "domains": [
        {"name": "surface", "decoder_blocks": 2, "fields": [{"name": "pressure", "dim": 1}]},
        {"name": "volume", "decoder_blocks": 2, "fields": [{"name": "velocity", "dim": 3}]}
    ]
}"#;

/// A network with random weights.
pub struct Network {
    pub model: AbUpt,
    /// Its weights by name.
    pub weights: HashMap<String, Tensor>,
}

impl Network {
    pub fn new() -> Result<Self> {
        let device = Device::Cpu;
        let config: AbUptConfig = serde_json::from_str(CONFIG).expect("a valid configuration");
        let names = VarMap::new();
        AbUpt::new(&config, VarBuilder::from_varmap(&names, DType::F32, &device))?;
        let names = names.data().lock().expect("nobody else has it").clone();
        // Weights of a size that keeps the numbers inside the network near 1, layer norms near the identity.
        let random = |dims: &[usize], name: &str| match dims {
            [_, input] => Tensor::randn(0f32, 1.0 / (*input as f32).sqrt(), dims, &device),
            _ if name.ends_with("weight") => Tensor::randn(1f32, 0.1, dims, &device),
            _ => Tensor::randn(0f32, 0.1, dims, &device),
        };
        let weights = names.iter().map(|(name, var)| Ok((name.clone(), random(var.dims(), name)?)));
        let weights = weights.collect::<Result<HashMap<_, _>>>()?;
        let model = AbUpt::new(&config, VarBuilder::from_tensors(weights.clone(), DType::F32, &device))?;
        Ok(Self { model, weights })
    }
}

/// Random points of one geometry, with supernodes evenly among them.
pub fn geometry(points: usize, supernodes: usize) -> Result<Geometry> {
    let positions = Tensor::rand(0f32, 200., (points, 3), &Device::Cpu)?;
    let supernodes: Vec<u32> = (0..supernodes).map(|index| (index * points / supernodes) as u32).collect();
    Geometry::new(&positions, &supernodes)
}

/// What the passes read.
pub struct Inputs {
    pub geometry: Geometry,
    /// `[1, ANCHORS, 3]` for each domain.
    pub anchors: Vec<Tensor>,
    /// `[1, QUERIES, 3]` for each domain.
    pub queries: Vec<Tensor>,
}

impl Inputs {
    pub fn new() -> Result<Self> {
        let points = |count: usize| Tensor::rand(0f32, 200., (1, count, 3), &Device::Cpu);
        Ok(Self {
            geometry: geometry(POINTS, SUPERNODES)?,
            anchors: DOMAINS.iter().map(|_| points(ANCHORS)).collect::<Result<_>>()?,
            queries: DOMAINS.iter().map(|_| points(QUERIES)).collect::<Result<_>>()?,
        })
    }

    /// A first pass over geometry, anchors and queries.
    pub fn first_pass(&self) -> AbUptInput {
        let mut input = AbUptInput::new().geometry(&self.geometry);
        for ((domain, anchors), queries) in DOMAINS.iter().zip(&self.anchors).zip(&self.queries) {
            input = input.anchors(*domain, anchors).queries(*domain, queries);
        }
        input
    }

    /// The queries of a later pass.
    pub fn later_queries(&self) -> impl Iterator<Item = (&'static str, Tensor)> + '_ {
        DOMAINS.into_iter().zip(self.queries.iter().cloned())
    }
}
