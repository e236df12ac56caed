//! A trained network inside a program of your own: fields at points, in physical units.
//!
//! `cargo run --release --example embed_predictor`

use std::collections::HashMap;
use std::path::Path;

use anyhow::Result;
use candle_core::{DType, Device, Tensor};
use candle_mixed_attention::models::Normalisation;
use candle_mixed_attention::models::ab_upt::{AbUptConfig, Checkpoint, EncodedBody, Predictor, PredictorInput};

/// What a program keeps: a body that was read once, and answers at any point.
pub struct Flow {
    body: EncodedBody,
}

impl Flow {
    /// Reads the network and one body: points of its surface, and points of surface and flow that serve as anchors.
    pub fn new(data: &Path, device: &Device) -> Result<Self> {
        let description = data.join("ellipsoid.json");
        let config = AbUptConfig::read(&description)?;
        let network = Checkpoint::open(data.join("ellipsoid.safetensors"))?.load(&config, DType::F32, device)?;
        let predictor = Predictor::new(network, &Normalisation::read(&description)?)?;

        let sample = candle_core::safetensors::load(data.join("sample.safetensors"), &Device::Cpu)?;
        let condition = numbers(&sample, "condition")?;
        let supernodes: Vec<u32> = sample["geometry.supernodes"].to_dtype(DType::U32)?.to_vec1()?;
        let input = PredictorInput::new()
            .geometry(&numbers(&sample, "geometry.pos")?, &supernodes)
            .condition("alpha", &[condition[0].into()])
            .condition("beta", &[condition[1].into()])
            .anchors("surface", &numbers(&sample, "surface.anchors")?)
            .anchors("volume", &numbers(&sample, "volume.anchors")?);
        Ok(Self { body: predictor.encode(&input)? })
    }

    /// Velocity at points of the flow, however many there are: 4,096 at a time.
    pub fn velocity(&self, points: &[[f32; 3]]) -> Result<Vec<[f32; 3]>> {
        let mut velocity = Vec::with_capacity(points.len());
        for chunk in self.body.chunks("volume", points.iter().copied(), 4096) {
            velocity.extend_from_slice(chunk?.values("velocity")?.as_chunks().0);
        }
        Ok(velocity)
    }
}

fn numbers(sample: &HashMap<String, Tensor>, name: &str) -> Result<Vec<f32>> {
    let tensor = sample.get(name).ok_or_else(|| anyhow::anyhow!("the sample has no {name}"))?;
    Ok(tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?)
}

pub fn main() -> Result<()> {
    let flow = Flow::new(&Path::new(env!("CARGO_MANIFEST_DIR")).join("predict/data"), &Device::Cpu)?;
    let points: Vec<[f32; 3]> = (0..8u8).map(|i| [-2.0 + 0.5 * f32::from(i), 0.0, 1.5]).collect();
    for (point, velocity) in points.iter().zip(flow.velocity(&points)?) {
        println!("{point:5.2?}  {velocity:6.3?}");
    }
    Ok(())
}
