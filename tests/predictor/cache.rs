//! A body that is saved, shipped and loaded predicts the same; one of another network is refused.

use candle_core::{DType, Tensor};
use candle_mixed_attention::models::ab_upt::{AbUptCache, Predictor};
use candle_mixed_attention::models::{Normalisation, PositionStatistics};

use crate::fixtures::{BODY, DEMO, Golden, demo, sample, sample_input};

#[test]
fn a_loaded_body_predicts_the_same_to_the_last_bit() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("body.safetensors");
    BODY.save(&path).unwrap();
    // Another predictor, as on another machine.
    let loaded = demo(DType::F32).load(&path).unwrap();
    for domain in ["surface", "volume"] {
        let queries = &sample(&format!("{domain}.queries"))[..300];
        let (before, after) = (BODY.predict(domain, queries).unwrap(), loaded.predict(domain, queries).unwrap());
        for (field, _) in before.iter() {
            assert_eq!(before.values(field).unwrap(), after.values(field).unwrap());
        }
        assert!(loaded.at_anchors(domain).unwrap_err().to_string().contains(domain));
    }
}

#[test]
fn every_golden_network_and_half_precision_come_back() {
    let folder = tempfile::tempdir().unwrap();
    for case in Golden::all() {
        let (path, predictor) = (folder.path().join(&case.name), case.predictor());
        let body = predictor.encode(&case.random_input(3)).unwrap();
        body.save(&path).unwrap();
        let loaded = case.predictor().load(&path).unwrap();
        for domain in &case.config.domains {
            let points = case.random_points(6, 4);
            let (before, after) = (body.predict(&domain.name, &points), loaded.predict(&domain.name, &points));
            let (before, after) = (before.unwrap(), after.unwrap());
            for (field, _) in before.iter() {
                assert_eq!(before.values(field).unwrap(), after.values(field).unwrap(), "{}", case.name);
            }
        }
    }
    let (path, half) = (folder.path().join("half"), demo(DType::BF16));
    half.encode(&sample_input()).unwrap().save(&path).unwrap();
    half.load(&path).unwrap();
}

#[test]
fn the_body_of_another_network_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("body.safetensors");
    BODY.save(&path).unwrap();

    let other_network = Golden::named("one_domain").predictor();
    let message = other_network.load(&path).unwrap_err().to_string();
    assert!(message.starts_with("the cache does not fit: the configuration is"), "{message}");

    let message = demo(DType::F16).load(&path).unwrap_err().to_string();
    assert_eq!(message, "the cache does not fit: the dtype is f32 in the cache and f16 in this network");

    let (one, two) = (Golden::named("two_domains"), Golden::named("two_domains"));
    let mut other_weights = two;
    let name = "w.domain_decoder_projections.surface.project.bias";
    let shifted = (&other_weights.tensors[name] + 1.0).unwrap();
    other_weights.tensors.insert(name.to_string(), shifted);
    one.predictor().encode(&one.random_input(1)).unwrap().save(&path).unwrap();
    let message = other_weights.predictor().load(&path).unwrap_err().to_string();
    assert!(message.starts_with("the cache does not fit: the hash of the weights is"), "{message}");
}

#[test]
fn other_statistics_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("body.safetensors");
    BODY.save(&path).unwrap();
    let position = PositionStatistics::affine(vec![0.0; 3], vec![4.0; 3], None).unwrap();
    let statistics = Normalisation { position, ..DEMO.statistics().clone() };
    let stretched = Predictor::new(DEMO.model().clone(), &statistics).unwrap();
    let message = stretched.load(&path).unwrap_err().to_string();
    assert!(message.contains("it holds others where the statistics"), "{message}");

    BODY.cache().save_safetensors(&path).unwrap();
    let message = DEMO.load(&path).unwrap_err().to_string();
    assert!(message.contains("it holds none where the statistics"), "{message}");
    // The caller vouches for a cache that knows no statistics.
    let cache = AbUptCache::load_safetensors(&path, DEMO.model().device()).unwrap();
    DEMO.with_cache(cache).unwrap().predict("surface", &[1.15f32, 0.0, 0.0]).unwrap();
}

#[test]
fn damaged_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("body.safetensors");
    BODY.save(&path).unwrap();
    let whole = std::fs::read(&path).unwrap();
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left behind");
    for length in [0, 4, 100, whole.len() / 2, whole.len() - 1] {
        std::fs::write(&path, &whole[..length]).unwrap();
        let message = DEMO.load(&path).unwrap_err().to_string();
        assert!(message.contains("body.safetensors"), "{length} bytes: {message}");
    }
    let message = DEMO.load(folder.path().join("missing")).unwrap_err().to_string();
    assert!(message.contains("missing"), "{message}");
}

#[test]
fn the_cache_of_several_samples_is_refused() {
    let case = Golden::named("one_domain");
    let anchors = Tensor::rand(-1f32, 1., (2, 5, 3), &candle_core::Device::Cpu).unwrap();
    let input = candle_mixed_attention::models::ab_upt::AbUptInput::new().anchors("surface", &anchors);
    let cache = case.model().forward(&input).unwrap().cache;
    let message = case.predictor().with_cache(cache).unwrap_err().to_string();
    assert_eq!(message, "cache has 2 samples, expected 1");
}
