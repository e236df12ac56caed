//! The program on real files: the demo model, the golden cases, files of PyTorch.

use std::path::{Path, PathBuf};

use candle_mixed_attention::candle_core::{DType, Device, Tensor};
use candle_mixed_attention::models::Normalisation;
use candle_mixed_attention::models::ab_upt::{AbUptConfig, AbUptInput, Checkpoint, Geometry, Predictor, StoredTensor};
use clap::Parser;
use serde_json::Value;

use super::args::Arguments;
use super::inspect;
use super::listing::{Listing, count};
use super::memory::Memory;

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

fn parse(file: &Path, more: &[&str]) -> Arguments {
    let file = file.to_str().unwrap();
    Arguments::parse_from([&["inspect", file], more].concat())
}

fn report(file: &str, more: &[&str]) -> (String, bool) {
    inspect(&parse(&root(file), more)).unwrap()
}

fn assert_says(report: &str, words: &[&str]) {
    for word in words {
        assert!(report.contains(word), "no '{word}' in:\n{report}");
    }
}

#[test]
fn the_demo_fits_its_description() {
    let config = root("predict/data/ellipsoid.json");
    let (text, fits) = report("predict/data/ellipsoid.safetensors", &["--config", config.to_str().unwrap()]);
    assert!(fits);
    let words = [
        "841,925 parameters",
        "width 96, 3 heads of 32, feed-forward 288",
        "physics blocks: perceiver, self, cross, self, cross",
        "conditions: alpha [1], beta [1]",
        "domain volume: 1 decoder blocks, fields velocity [3], pressure [1]",
        "The checkpoint fits",
    ];
    assert_says(&text, &words);
    assert!(!text.contains("== memory"));
}

#[test]
fn without_a_description_the_names_speak() {
    let (text, fits) = report("predict/data/ellipsoid.safetensors", &["--points", "5"]);
    assert!(fits);
    let words = [
        "physics blocks: perceiver, self/cross/joint, self/cross/joint, self/cross/joint, self/cross/joint",
        "geometry blocks: 1",
        "conditions: 2 components",
        "domain volume: 1 decoder blocks, fields of 4 components together",
        "needs a configuration",
    ];
    assert_says(&text, &words);
}

#[test]
fn files_of_pytorch_describe_themselves() {
    for file in ["tests/torch_files/new.th", "tests/torch_files/old.th"] {
        let (text, fits) = report(file, &["--points", "150000000"]);
        assert!(fits, "{text}");
        let words =
            ["AB-UPT of the file's model_config", "stored as backbone.", "150,000,000 points in f32, 16,384 at"];
        assert_says(&text, &words);
    }
    let (text, _) = report("tests/torch_files/old.th", &[]);
    assert_says(&text, &["domain_biases.surface.mlp.0.bias", "stored as backbone.surface_bias.mlp.0.bias"]);
}

#[test]
fn tensors_that_do_not_fit_are_listed() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config.json");
    let index: Value =
        serde_json::from_str(&std::fs::read_to_string(root("tests/golden/index.json")).unwrap()).unwrap();
    let case = index["cases"].as_array().unwrap().iter().find(|case| case["name"] == "two_domains").unwrap();
    std::fs::write(&config, case["config"].to_string()).unwrap();
    let (text, fits) = report("tests/golden/ab_upt/two_domains.safetensors", &["--config", config.to_str().unwrap()]);
    assert!(!fits);
    assert_says(&text, &["does not fit in", "unexpected: in.geometry.pos"]);
    // The weights themselves do fit.
    assert!(!text.contains("missing:") && !text.contains("shape:"), "{text}");

    let mut other = case["config"].clone();
    other["mlp_hidden_dim"] = 100.into();
    other["domains"][0]["decoder_blocks"] = 9.into();
    std::fs::write(&config, other.to_string()).unwrap();
    let (text, fits) = report("tests/golden/ab_upt/two_domains.safetensors", &["--config", config.to_str().unwrap()]);
    assert!(!fits);
    assert_says(
        &text,
        &["missing: domain_decoder_blocks.surface.8.norm1.weight", "shape: ", "mlp.fc1.weight must be [100, "],
    );
}

#[test]
fn a_description_is_written_and_only_numbers_are_missing() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let demo = root("predict/data/ellipsoid.json").display().to_string();
    for (file, config) in [("tests/torch_files/new.th", None), ("predict/data/ellipsoid.safetensors", Some(&*demo))] {
        let written = path(file.rsplit('/').next().unwrap());
        let config = config.map_or(vec![], |config| vec!["--config", config]);
        let (text, _) = report(file, &[&config[..], &["--write-config", &written]].concat());
        assert_says(&text, &["== description", &written, "null for the statistics"]);
        let checkpoint = Checkpoint::open(root(file)).unwrap();
        checkpoint.check(&AbUptConfig::read(&written).unwrap()).unwrap();
        // Unfilled it is refused; filled in it is complete.
        let error = Normalisation::read(&written).unwrap_err().to_string();
        assert!(error.contains(&written), "{error}");
        let text = std::fs::read_to_string(&written).unwrap();
        let mut filled: Value = serde_json::from_str(&text).unwrap();
        fn fill(value: &mut Value, key: &str) {
            match value {
                Value::Null => *value = if key == "min" { -1.5 } else { 1.5 }.into(),
                Value::Array(list) => list.iter_mut().for_each(|value| fill(value, key)),
                Value::Object(entries) => entries.iter_mut().for_each(|(key, value)| fill(value, key)),
                _ => {}
            }
        }
        fill(&mut filled["normalisation"], "");
        std::fs::write(&written, filled.to_string()).unwrap();
        let statistics = Normalisation::read(&written).unwrap();
        Predictor::statistics_of(&AbUptConfig::read(&written).unwrap(), &statistics).unwrap();
        // Nothing is ever replaced.
        let again = inspect(&parse(&root(file), &[&config[..], &["--write-config", &written]].concat()));
        assert!(format!("{:#}", again.unwrap_err()).contains("--write-config: cannot write"));
    }
}

#[test]
fn options_that_need_a_configuration_say_so() {
    let untied = root("predict/data/ellipsoid.json").display().to_string();
    let cases: [(&[&str], &str); 4] = [
        (&["--write-config", "never.json"], "--write-config: needs a configuration"),
        (&["--square-banks", "plain"], "--square-banks: needs a configuration"),
        (&["--square-banks", "plain", "--config", &untied], "--square-banks: the network has no untied blocks"),
        (&["--config", "none.json"], "--config: 'none.json'"),
    ];
    for (more, expected) in cases {
        let error = format!("{:#}", inspect(&parse(&root("predict/data/ellipsoid.safetensors"), more)).unwrap_err());
        assert!(error.contains(expected), "{more:?}: {error}");
    }
    assert!(!Path::new("never.json").exists());
}

#[test]
fn attention_layers_are_found_by_name() {
    let words = [
        "w: MixedAttention, AnchorAttention, DotProductAttention or PerceiverAttention, width 32, 2 heads",
        "other tensors",
    ];
    assert_says(&report("examples/data/mixed_attention_layer.safetensors", &[]).0, &words);
    let perceiver = report("tests/golden/perceiver/hd16_kv20.safetensors", &[]).0;
    assert_says(
        &perceiver,
        &["w: PerceiverAttention, width 48, source width 20, 3 or 4 heads by its wave numbers in 3D"],
    );
    assert!(!perceiver.contains("missing"), "{perceiver}");
    assert_says(
        &report("tests/golden/mlp/gelu.safetensors", &[]).0,
        &["none: no tensors named q, k, v, qkv, kv or proj"],
    );
}

#[test]
fn what_a_layer_lacks_is_listed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("layer.safetensors");
    let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::BF16, &Device::Cpu).unwrap();
    let tensors = [
        ("a.qkv.weight", zeros(&[24, 8])),
        ("a.proj.weight", zeros(&[8, 8])),
        ("b.q.weight.0", zeros(&[8, 8])),
        ("b.q.weight.1", zeros(&[8, 8])),
        ("b.kv.weight", zeros(&[16, 5])),
        ("b.proj.weight.0", zeros(&[8, 8])),
        ("b.proj.weight.1", zeros(&[8, 7])),
        ("c.q.weight", zeros(&[8, 8])),
        ("c.proj.bias", zeros(&[8])),
    ];
    let tensors = tensors.into_iter().map(|(name, tensor)| (name.to_string(), tensor)).collect();
    candle_mixed_attention::candle_core::safetensors::save(&tensors, &path).unwrap();
    let (text, _) = inspect(&parse(&path, &[])).unwrap();
    let words = [
        "a: MixedAttention, AnchorAttention or DotProductAttention, width 8\n",
        "b: PerceiverAttention, width 8, source width 5, weights for each of 2 domains\n",
        "  shape: b.proj.weight.1 must be [8, 8], got [8, 7]\n",
        "  missing: c.proj.weight [8, 8]\n",
        "  missing: c.k.weight [8, 8]\n",
        "  missing: c.q.bias [8]\n",
        "9 tensors, 656 parameters, 1.31 kB (bf16)",
    ];
    assert_says(&text, &words);
    assert!(!text.contains("missing: a.") && !text.contains("missing: b."), "{text}");
}

#[test]
fn files_that_cannot_be_read_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.safetensors");
    for content in ["", "{}", "nonsense"] {
        std::fs::write(&path, content).unwrap();
        let error = inspect(&parse(&path, &[])).unwrap_err().to_string();
        assert!(error.contains("weights.safetensors"), "{error}");
    }
    let error = inspect(&parse(&root("predict/data/ellipsoid.safetensors"), &["--config", "none.json"])).unwrap_err();
    assert!(format!("{error:#}").contains("none.json"), "{error}");
    for arguments in [&["--points", "-1"][..], &["--anchors", "5"], &["--points", "5", "--dtype", "f64"]] {
        assert!(Arguments::try_parse_from([&["inspect", "file"], arguments].concat()).is_err(), "{arguments:?}");
    }
}

#[test]
fn predictions_take_at_most_what_is_foretold() {
    // Peak resident kibibytes of `predict` with the demo network, 2 cores, x86-64 Linux.
    let measured = [
        // anchors, chunk, supernodes, dtype, measured
        ("64", "2048", "16", "f32", 66_236),
        ("64", "16384", "16", "f32", 89_020),
        ("64", "65536", "16", "f32", 293_980),
        ("64", "131072", "16", "f32", 485_388),
        ("64", "200000", "16", "f32", 730_784),
        ("64", "32768", "16", "bf16", 222_088),
        ("64", "65536", "16", "bf16", 451_004),
        ("64", "131072", "16", "bf16", 704_048),
        ("64", "200000", "16", "bf16", 990_656),
        ("64", "32768", "16", "f16", 293_116),
        ("64", "65536", "16", "f16", 527_488),
        ("64", "200000", "16", "f16", 1_129_692),
        ("4096", "2048", "16", "f32", 121_796),
        ("4096", "2048", "16", "bf16", 89_044),
        ("8192", "1024", "128", "bf16", 148_580),
        ("16384", "1024", "128", "f32", 282_596),
        ("1024", "65536", "2048", "bf16", 441_664),
        ("64", "16384", "2048", "f32", 94_308),
        ("64", "16384", "8192", "f32", 272_068),
        ("64", "1024", "4096", "f32", 159_564),
        ("64", "1024", "16384", "f32", 497_764),
        ("64", "1024", "16384", "bf16", 496_316),
    ];
    let config = AbUptConfig::read(root("predict/data/ellipsoid.json")).unwrap();
    let checkpoint = Checkpoint::open(root("predict/data/ellipsoid.safetensors")).unwrap();
    for case @ (anchors, chunk, supernodes, dtype, kibibytes) in measured {
        let options = ["--anchors", anchors, "--chunk", chunk, "--supernodes", supernodes, "--dtype", dtype];
        let sizes = parse(Path::new("file"), &[&["--points", "200000"], &options[..]].concat()).sizes;
        let (foretold, measured) = (Memory::new(&checkpoint, &config, &sizes, 200_000).peak(), kibibytes * 1024);
        assert!(measured <= foretold, "{case:?}: {foretold} are foretold, {measured} were taken");
        // An upper bound, but not any.
        assert!(foretold < measured * 5 / 2, "{case:?}: {foretold} are foretold, {measured} were taken");
    }
}

/// Bytes of the keys and values in a cache file.
fn stored_bytes(path: &Path) -> u64 {
    let bytes = |tensor: &StoredTensor| count(tensor) * tensor.dtype.size_in_bytes() as u64;
    let cache = Checkpoint::open(path).unwrap();
    cache.tensors().iter().filter(|(name, _)| name.as_str() != "condition").map(|(_, tensor)| bytes(tensor)).sum()
}

#[test]
fn the_cache_takes_the_memory_that_is_foretold() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cache.safetensors");
    let config = AbUptConfig::read(root("predict/data/ellipsoid.json")).unwrap();
    let checkpoint = Checkpoint::open(root("predict/data/ellipsoid.safetensors")).unwrap();
    let points = |shape: &[usize]| Tensor::rand(0f32, 10., shape, &Device::Cpu).unwrap();
    for (dtype, name) in [(DType::F32, "f32"), (DType::BF16, "bf16")] {
        let model = checkpoint.load(&config, dtype, &Device::Cpu).unwrap();
        let angle = Tensor::new(&[0.5f32], &Device::Cpu).unwrap();
        let supernodes: Vec<u32> = (0..11).collect();
        let input = AbUptInput::new()
            .geometry(&Geometry::new(&points(&[50, 3]), &supernodes).unwrap())
            .condition("alpha", &angle)
            .condition("beta", &angle)
            .anchors("surface", &points(&[1, 37, 3]))
            .anchors("volume", &points(&[1, 37, 3]));
        model.forward(&input).unwrap().cache.save_safetensors(&path).unwrap();
        let sizes = ["--points", "1000", "--anchors", "37", "--supernodes", "11", "--dtype", name];
        let memory = Memory::new(&checkpoint, &config, &parse(Path::new("file"), &sizes).sizes, 1000);
        assert_eq!(memory.cache, stored_bytes(&path), "{name}");
        assert_eq!(memory.fields, 4 * 4 * 1000);
        let listing = Listing::new(&checkpoint);
        match dtype {
            DType::F32 => assert_eq!(memory.weights, listing.bytes()),
            _ => assert!(memory.weights < listing.bytes() * 2 / 3 && memory.weights > listing.bytes() / 2),
        }
        assert_eq!(memory.peak(), memory.weights + memory.cache + memory.activations + 75_000_000);
    }
}

/// A file of tensors of one number, under any names and shapes.
fn tensors_of_one(path: &Path, tensors: impl Iterator<Item = (String, Vec<u64>)>) {
    let (mut header, mut end) = (serde_json::Map::new(), 0);
    for (name, shape) in tensors {
        header.insert(name, serde_json::json!({"dtype": "F32", "shape": shape, "data_offsets": [end, end + 4]}));
        end += 4;
    }
    let header = Value::Object(header).to_string();
    let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &vec![0; end]].concat();
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn indices_in_names_are_no_counts() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("indices.safetensors");
    for index in ["7", "1000000000", "18446744073709551615", "18446744073709551616", "x", "+1", ""] {
        let names = ["domain_biases.a.mlp.0.weight".to_string(), format!("physics_blocks.{index}.attn.x")];
        tensors_of_one(&path, names.into_iter().map(|name| (name, vec![1, 1])));
        let (text, _) = report(path.to_str().unwrap(), &[]);
        let blocks = if index.parse::<usize>().is_ok() { "perceiver" } else { "" };
        assert_says(&text, &[&format!("physics blocks: {blocks}\n")]);

        let names = ["a.q.weight".to_string(), format!("a.proj.weight.{index}"), format!("a.q.bias.{index}")];
        tensors_of_one(&path, names.into_iter().map(|name| (name, vec![1, 1])));
        let (text, _) = report(path.to_str().unwrap(), &[]);
        let domains = if index.parse::<usize>().is_ok() { "weights for each of 1 domains" } else { "a: " };
        assert_says(&text, &[domains]);
    }
}

#[test]
fn any_number_of_axes_and_letters_is_listed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("long.safetensors");
    let tensors =
        [("deep".to_string(), vec![1; 100_000]), ("x".repeat(100_000), vec![1]), ("short".to_string(), vec![1])];
    tensors_of_one(&path, tensors.into_iter());
    let (text, _) = report(path.to_str().unwrap(), &[]);
    assert_says(&text, &["[1, 1, 1, 1, 1, 1, 1, 1] and more, 100000 axes", "3 tensors, 3 parameters"]);
    // No line is padded to the longest one.
    assert!(text.len() < 250_000, "{}", text.len());
}

#[test]
fn many_tensors_are_listed_in_time_that_grows_with_their_number() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("many.safetensors");
    let seconds = |count: usize, name: &dyn Fn(usize) -> String| {
        tensors_of_one(&path, (0..count).map(|at| (name(at), vec![1, 1])));
        let start = std::time::Instant::now();
        let (text, _) = report(path.to_str().unwrap(), &[]);
        assert_says(&text, &[&format!("{} tensors", super::units::grouped(count as u64))]);
        start.elapsed().as_secs_f64()
    };
    let layers: &dyn Fn(usize) -> String = &|at| format!("layer.{at}.q.weight");
    let blocks: &dyn Fn(usize) -> String = &|at| match at {
        0 => "domain_biases.a.mlp.0.weight".to_string(),
        _ => format!("physics_blocks.{at}.attn.q.weight"),
    };
    for name in [layers, blocks] {
        // Ten times the tensors take about ten times as long, and not a hundred times; the rest is for a busy machine.
        let (few, many) = (seconds(2_000, name), seconds(20_000, name));
        assert!(many < 40.0 * few + 1.0, "{few} s for 2,000 tensors, {many} s for 20,000");
    }
}
