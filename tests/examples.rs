//! The examples of embedding, as a program would use them.

mod support;

#[path = "../examples/embed_mixed_attention.rs"]
mod embed_mixed_attention;
#[path = "../examples/embed_predictor.rs"]
mod embed_predictor;

use std::path::Path;

use candle_core::{Device, Tensor};
use candle_nn::VarMap;
use embed_predictor::Flow;
use support::compare::check_close;

#[test]
fn examples_run() {
    embed_mixed_attention::main().unwrap();
    embed_predictor::main().unwrap();
}

#[test]
fn queries_of_the_model_do_not_see_each_other() {
    let weights = VarMap::new();
    let positions = Tensor::rand(0f32, 1., (2, 40, 3), &Device::Cpu).unwrap();
    let all = embed_mixed_attention::run(&positions, 25, &weights).unwrap();
    assert_eq!(all.dims(), [2, 40, 1]);
    let some = embed_mixed_attention::run(&positions.narrow(1, 0, 31).unwrap(), 25, &weights).unwrap();
    check_close("31 of 40 points", &some, &all.narrow(1, 0, 31).unwrap(), 1e-5).unwrap();
    // Anchors do.
    let other = embed_mixed_attention::run(&positions, 24, &weights).unwrap();
    assert!(check_close("another anchor less", &other, &all, 1e-5).is_err());
}

#[test]
fn the_flow_is_that_of_the_sample() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("predict/data");
    let sample = candle_core::safetensors::load(data.join("sample.safetensors"), &Device::Cpu).unwrap();
    let points: Vec<f32> = sample["volume.queries"].flatten_all().unwrap().to_vec1().unwrap();
    let velocity = Flow::new(&data, &Device::Cpu).unwrap().velocity(points.as_chunks().0).unwrap();
    let velocity = Tensor::from_slice(velocity.as_flattened(), (velocity.len(), 3), &Device::Cpu).unwrap();
    check_close("velocity", &velocity, &sample["predicted.queries.volume_velocity"], 1e-5).unwrap();
}
