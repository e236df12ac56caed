//! Trained networks with their statistics: the demo, and the networks of the golden set.

use std::collections::HashMap;
use std::path::Path;
use std::sync::LazyLock;

use candle_core::{DType, Device, Tensor};
use candle_mixed_attention::models::ab_upt::{AbUpt, AbUptConfig, Checkpoint, EncodedBody, Predictor, PredictorInput};
use candle_mixed_attention::models::{FieldStatistics, Normalisation, PositionStatistics};
use candle_nn::VarBuilder;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/predict/data");
const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden");

/// The demo: a network trained on potential flow past ellipsoids.
pub static DEMO: LazyLock<Predictor> = LazyLock::new(|| demo(DType::F32));

/// Its sample: one case that training never saw, with the fields that the reference predicts in f64.
pub static SAMPLE: LazyLock<HashMap<String, Tensor>> =
    LazyLock::new(|| candle_core::safetensors::load(format!("{DATA}/sample.safetensors"), &Device::Cpu).unwrap());

/// The body of the sample.
pub static BODY: LazyLock<EncodedBody> = LazyLock::new(|| DEMO.encode(&sample_input()).unwrap());

pub fn demo(dtype: DType) -> Predictor {
    let description = format!("{DATA}/ellipsoid.json");
    let checkpoint = Checkpoint::open(format!("{DATA}/ellipsoid.safetensors")).unwrap();
    let model = checkpoint.load(&AbUptConfig::read(&description).unwrap(), dtype, &Device::Cpu).unwrap();
    Predictor::new(model, &Normalisation::read(&description).unwrap()).unwrap()
}

/// The numbers of a tensor of the sample.
pub fn sample(name: &str) -> Vec<f32> {
    SAMPLE[name].flatten_all().unwrap().to_dtype(DType::F32).unwrap().to_vec1().unwrap()
}

/// The points of a tensor of the sample.
pub fn sample_points(name: &str) -> Vec<[f32; 3]> {
    sample(name).as_chunks().0.to_vec()
}

/// Geometry, conditions and anchors of the sample in physical units.
pub fn sample_input() -> PredictorInput {
    let supernodes: Vec<u32> = sample("geometry.supernodes").into_iter().map(|index| index as u32).collect();
    let condition = sample("condition");
    PredictorInput::new()
        .geometry(&sample("geometry.pos"), &supernodes)
        .condition("beta", &[f64::from(condition[1])])
        .condition("alpha", &[f64::from(condition[0])])
        .anchors("surface", &sample("surface.anchors"))
        .anchors("volume", &sample("volume.anchors"))
}

/// Networks of the golden set that take one body at a time.
pub struct Golden {
    pub name: String,
    pub config: AbUptConfig,
    pub tensors: HashMap<String, Tensor>,
    pub tolerance: f64,
}

impl Golden {
    /// All of them.
    pub fn all() -> Vec<Self> {
        let text = std::fs::read_to_string(format!("{GOLDEN}/index.json")).unwrap();
        let index: serde_json::Value = serde_json::from_str(&text).unwrap();
        let cases = index["cases"].as_array().unwrap().iter().filter(|case| case["kind"] == "ab_upt");
        let read = |case: &serde_json::Value| Self {
            name: case["name"].as_str().unwrap().to_string(),
            config: serde_json::from_value(case["config"].clone()).unwrap(),
            tensors: candle_core::safetensors::load(
                Path::new(GOLDEN).join(case["file"].as_str().unwrap().trim_start_matches("golden/")),
                &Device::Cpu,
            )
            .unwrap(),
            tolerance: case["tolerance"].as_f64().unwrap(),
        };
        cases.map(read).collect()
    }

    pub fn named(name: &str) -> Self {
        Self::all().into_iter().find(|case| case.name == name).unwrap()
    }

    pub fn model(&self) -> AbUpt {
        let weights = self.tensors.iter().filter_map(|(name, tensor)| Some((name.strip_prefix("w.")?, tensor)));
        let weights = weights.map(|(name, tensor)| (name.to_string(), tensor.clone())).collect();
        AbUpt::new(&self.config, VarBuilder::from_tensors(weights, DType::F32, &Device::Cpu)).unwrap()
    }

    /// A predictor in the units of the network.
    pub fn predictor(&self) -> Predictor {
        let width = self.config.position_dim;
        let position = PositionStatistics::affine(vec![0.0; width], vec![1.0; width], None).unwrap();
        let conditions = self.config.condition.iter().map(|condition| {
            let (mean, std) = (vec![0.0; condition.dim], vec![1.0; condition.dim]);
            candle_mixed_attention::models::ConditionStatistics::new(condition.name.clone(), None, mean, std).unwrap()
        });
        let fields = self.config.domains.iter().flat_map(|domain| {
            domain.fields.iter().map(|field| {
                let (mean, std) = (vec![0.0; field.dim], vec![1.0; field.dim]);
                FieldStatistics::new(domain.name.clone(), field.name.clone(), mean, std).unwrap()
            })
        });
        let statistics = Normalisation::new(position, conditions.collect(), fields.collect()).unwrap();
        Predictor::new(self.model(), &statistics).unwrap()
    }

    /// A random body for the network, with some anchors in every domain.
    pub fn random_input(&self, seed: u64) -> PredictorInput {
        let mut input = PredictorInput::new();
        if self.config.uses_geometry() {
            let features = self.config.supernode_pooling.as_ref().and_then(|pooling| pooling.input_features_dim);
            assert_eq!(features, None, "the golden networks read positions alone");
            input = input.geometry(&self.random_points(60, seed), &[3, 14, 15, 9, 26, 53]);
        }
        for (at, condition) in self.config.condition.iter().enumerate() {
            input = input.condition(&condition.name, &vec![0.1 + at as f64; condition.dim]);
        }
        for (at, domain) in self.config.domains.iter().enumerate() {
            input = input.anchors(&domain.name, &self.random_points(9 + 2 * at, seed + 1 + at as u64));
        }
        input
    }

    /// The numbers of random points.
    pub fn random_points(&self, count: usize, seed: u64) -> Vec<f32> {
        let mut random = StdRng::seed_from_u64(seed);
        (0..count * self.config.position_dim).map(|_| random.random_range(-2.0..2.0)).collect()
    }
}
