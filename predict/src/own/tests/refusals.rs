//! Input that cannot be right: each with an error that names it, and nothing written.

use super::*;

impl Workplace {
    /// The error of a run whose files or words were changed.
    fn refusal(&self, line: &[String]) -> String {
        let error = format!("{:#}", run(line).expect_err("the run should be refused"));
        assert!(self.files("out").is_empty(), "something was written in spite of: {error}");
        error
    }

    /// The usual line without an option and its value.
    fn without(&self, option: &str) -> Vec<String> {
        let mut line = self.line(&[]);
        let at = line.iter().position(|word| word == option).unwrap();
        line.drain(at..at + 2);
        line
    }
}

#[test]
fn options_that_do_not_fit_the_network_are_named() {
    let workplace = Workplace::new();
    let cases: &[(&[&str], &str)] = &[
        (
            &["--points", "tail=x.npy"],
            "--points: the network has no domain 'tail', but [\"surface\", \"volume\", \"wake\"]",
        ),
        (&["--points", "wake=x.npy", "--points", "wake=y.npy"], "--points: domain 'wake' is given twice"),
        (&["--points", "volume=x.npy"], "--volume and --points volume=… are the same"),
        (&["--points", "surface={}/surface.npy"], "domain 'wake' has no points: --points wake=FILE says where"),
        (&["--anchor-points", "tail=x.npy"], "--anchor-points: the network has no domain 'tail'"),
        (&["--truth", "tail=x.npy"], "--truth: the network has no domain 'tail'"),
        (&["--slice", "tail:y=0"], "--slice: the network has no domain 'tail'"),
        (&["--slice", "volume:y=2.9"], "--slice volume:y=2.9: the points of the domain lie between y = -"),
        (&["--slice", "volume:y=0", "--slice", "volume:y=0"], "--slice volume:y=0 is given twice"),
        (&["--supernodes", "51"], "--supernodes must be at most 50, the points of the geometry, got 51"),
        (&["--condition", "mach=0.3"], "--condition: condition 'mach' is unknown"),
        (&["--config", "{}/nothing.json"], "nothing.json"),
        (&["--weights", "{}/nothing.safetensors"], "nothing.safetensors"),
        (&["--stats", "{}/nothing.json"], "nothing.json"),
        (&["--geometry", "{}/nothing.stl"], "--geometry: cannot open"),
        (&["--volume", "{}/body.step"], "--volume: {}/body.step: expected a file named *.stl, *.obj, *.ply, *.vtp"),
        (&["--volume", "{}/nothing.vtu"], "--volume: {}/nothing.vtu: cannot open"),
        (&["--weights-key", "ema"], "'ema'"),
        (&["--square-banks", "plain"], "--square-banks: the network has no untied blocks"),
        (&["--device", "metal"], "--device metal: not available"),
    ];
    for (more, expected) in cases {
        let expected = expected.replace("{}", &workplace.folder.path().display().to_string());
        let error = workplace.refusal(&workplace.line(more));
        assert!(error.contains(&expected), "expected '{expected}', got '{error}'");
    }
    let cases = [
        ("--geometry", "--geometry is missing: the network has perceiver blocks"),
        ("--config", "--config is missing: the file of the weights does not describe its network"),
        ("--volume", "domain 'volume' has no points: --points volume=FILE says where"),
    ];
    for (option, expected) in cases {
        let error = workplace.refusal(&workplace.without(option));
        assert!(error.contains(expected), "expected '{expected}', got '{error}'");
    }
}

#[test]
fn conditions_are_taken_by_name_alone() {
    let workplace = Workplace::new();
    let data = |name: &str| format!("{DATA}/{name}");
    let line = |conditions: &str| -> Vec<String> {
        let line = "predict --weights W --config C --geometry G#geometry.pos --volume G#volume.anchors --out {}/out";
        let words = line.split_whitespace().chain(conditions.split_whitespace());
        let folder = workplace.folder.path().display().to_string();
        let word = |word: &str| match word {
            "W" => data("ellipsoid.safetensors"),
            "C" => data("ellipsoid.json"),
            word => word.replace("G#", &data("sample.safetensors#")).replace("{}", &folder),
        };
        words.map(word).collect()
    };
    let cases = [
        ("", "--condition: condition 'alpha' is missing; the model takes [\"alpha\", \"beta\"]"),
        ("--condition alpha=1", "--condition: condition 'beta' is missing"),
        ("--condition alpha=1 --condition beta=1 --condition gamma=1", "condition 'gamma' is unknown"),
        ("--condition alpha=1 --condition alpha=2 --condition beta=1", "condition 'alpha' is given twice"),
        ("--condition alpha=1,2 --condition beta=1", "condition 'alpha' must have 1 components per sample, got 2"),
    ];
    for (conditions, expected) in cases {
        let error = workplace.refusal(&line(conditions));
        assert!(error.contains(expected), "expected '{expected}', got '{error}'");
    }
    let order = |conditions: &str| {
        let words = line(&format!("{conditions} --chunk 4096 --anchors 32 --slice-points 2 --overwrite"));
        run(&words).unwrap();
        numbers(&workplace.tensors("volume.safetensors")["pressure"])
    };
    assert_eq!(order("--condition alpha=3 --condition beta=-5"), order("--condition beta=-5 --condition alpha=3"));
}

/// Changes one file of the workplace.
type Damage = fn(&Workplace);

fn rewrite(workplace: &Workplace, name: &str, change: impl Fn(Vec<u8>) -> Vec<u8>) {
    let path = workplace.path(name);
    std::fs::write(&path, change(std::fs::read(&path).unwrap())).unwrap();
}

fn truncate(workplace: &Workplace, name: &str) {
    rewrite(workplace, name, |bytes| bytes[..bytes.len() * 2 / 3].to_vec());
}

/// Replaces text in a JSON file.
fn replace(workplace: &Workplace, name: &str, from: &str, to: &str) {
    rewrite(workplace, name, |bytes| {
        let text = String::from_utf8(bytes).unwrap();
        assert!(text.contains(from), "{from} is not in {name}");
        text.replacen(from, to, 1).into_bytes()
    });
}

#[test]
fn damaged_files_are_named() {
    let cases: &[(Damage, &str)] = &[
        (|place| truncate(place, "body.stl"), "--geometry: {}/body.stl: damaged, or not an STL file"),
        (|place| truncate(place, "volume.npy"), "--volume: {}/volume.npy: truncated: 61 points need"),
        (|place| truncate(place, "wake.npy"), "--points wake: {}/wake.npy: truncated"),
        (|place| truncate(place, "model.json"), "--config: '{}/model.json' is not a readable configuration file"),
        (
            |place| truncate(place, "model.safetensors"),
            "--weights: '{}/model.safetensors' is not a readable safetensors",
        ),
        (|place| rewrite(place, "model.safetensors", |_| Vec::new()), "--weights: '{}/model.safetensors'"),
        (
            |place| rewrite(place, "model.safetensors", |_| b"PK\x03\x04 no archive at all".to_vec()),
            "--weights: '{}/model.safetensors' is not a readable PyTorch file",
        ),
        (|place| rewrite(place, "model.safetensors", |_| b"{\"weight_map\": 3}".to_vec()), "safetensors index"),
        (|place| rewrite(place, "body.stl", |_| Vec::new()), "--geometry: {}/body.stl: not an STL file: 0 bytes"),
        (
            |place| rewrite(place, "body.stl", |_| b"solid a\nendsolid a\nsolid b\nendsolid b\n".to_vec()),
            "--geometry: {}/body.stl: holds no triangles",
        ),
        (|place| rewrite(place, "body.stl", |_| b"solid a\nendsolid a\n".to_vec()), "body.stl: holds no triangles"),
        (|place| write_npy::<3>(&place.path("volume.npy"), &[]), "--volume: {}/volume.npy: holds no points"),
        (|place| write_npy(&place.path("volume.npy"), &[[0.0; 2]; 5]), "must have shape [points, 3], got 2 numbers"),
        (
            |place| write_npy(&place.path("volume.npy"), &[[0.0; 3], [0.0, f32::NAN, 0.0]]),
            "--volume: {}/volume.npy: point 1 has y = NaN; numbers must be finite",
        ),
        (
            |place| {
                let mut points = random_points(61, 1);
                points[37][2] = -3.5;
                write_npy(&place.path("volume.npy"), &points);
            },
            "--volume {}/volume.npy: point 37 has z = -3.5, outside the box [-3, 3] of the statistics",
        ),
        (|place| replace(place, "model.json", "\"surface\"", "\"hull/top\""), "cannot be the name of a file"),
        (
            |place| replace(place, "model.json", "_dim\":96", "_dim\":98"),
            "shape: physics_blocks.0.mlp.fc1.bias must be [98], got [96]",
        ),
        (
            |place| replace(place, "model.json", "\"decoder_blocks\":1", "\"decoder_blocks\":2"),
            "missing: domain_decoder_blocks",
        ),
        (|place| replace(place, "model.json", "\"position\":", "\"positions\":"), "--stats: '{}/model.json' holds no"),
        (|place| replace(place, "model.json", "\"std\":[2.0]", "\"std\":[2.0,1.0]"), "std of field 'surface_p'"),
        (
            |place| replace(place, "model.json", "\"std\":[2.0]", "\"std\":[0]"),
            "std of field 'surface_p' must be above 0",
        ),
        (
            |place| {
                replace(
                    place,
                    "model.json",
                    "\"domain\":\"surface\",\"name\":\"p\"",
                    "\"domain\":\"hull\",\"name\":\"p\"",
                )
            },
            "there are no statistics for field 'surface_p'",
        ),
        (
            |place| {
                rewrite(place, "model.safetensors", |mut bytes| {
                    let last = bytes.len() - 4;
                    bytes[last..].copy_from_slice(&f32::NAN.to_le_bytes());
                    bytes
                })
            },
            "--weights: '{}/model.safetensors' does not fit the network:\n  not finite: ",
        ),
        // Only the network itself can say so.
        (
            |place| replace(place, "model.json", "\"std\":[2.0]", "\"std\":[3e38]"),
            "anchors of 'surface': the network predicts p = ",
        ),
    ];
    for (damage, expected) in cases {
        let workplace = Workplace::new();
        damage(&workplace);
        let expected = expected.replace("{}", &workplace.folder.path().display().to_string());
        let error = workplace.refusal(&workplace.line(&[]));
        assert!(error.contains(&expected), "expected '{expected}', got '{error}'");
    }
}

#[test]
fn a_dry_run_finds_what_a_run_would() {
    let cases: &[(Damage, &str)] = &[
        (
            |place| {
                let point = stl_io::Vertex::new([0.5; 3]);
                let triangle = stl_io::Triangle { normal: stl_io::Normal::new([0.0; 3]), vertices: [point; 3] };
                let mut file = std::fs::File::create(place.path("body.stl")).unwrap();
                stl_io::write_stl(&mut file, [triangle; 4].iter()).unwrap();
            },
            "--geometry: the mesh has no area",
        ),
        (
            |place| {
                std::fs::create_dir(place.path("out")).unwrap();
                place.run(&["--out", "{}/earlier"]).unwrap();
                std::fs::rename(place.path("earlier/run.json"), place.path("out/run.json")).unwrap();
            },
            "holds a run; --resume goes on with it",
        ),
    ];
    for (damage, expected) in cases {
        let workplace = Workplace::new();
        damage(&workplace);
        let before = workplace.files("out");
        let line = workplace.line(&["--dry-run"]);
        let error = format!("{:#}", run(&line).expect_err("the dry run should be refused"));
        assert!(error.contains(expected), "expected '{expected}', got '{error}'");
        assert_eq!(workplace.files("out"), before);
    }
}

#[test]
fn flat_statistics_are_checked() {
    let workplace = Workplace::new();
    let whole = "raw_pos_min: -3\nraw_pos_max: [3, 3, 3]\nsurface_p_mean: 0.5\nsurface_p_std: 2\nvolume_u_mean: [0.5, \
                 0.5, 0.5]\nvolume_u_std: [2, 2, 2]\nvolume_p_mean: [0.5]\nvolume_p_std: [2]\nwake_k_mean: 0.5\n\
                 wake_k_std: 2\n";
    let cases = [
        ("raw_pos_max: [3, 3, 3]\n", "", "raw_pos_max must be a number or a list of numbers, got nothing"),
        ("raw_pos_max: [3, 3, 3]", "raw_pos_max: [3, -3, 3]", "the box of the positions must be min < max"),
        ("wake_k_std: 2", "wake_k_std: wide", "wake_k_std must be a number or a list of numbers, got \"wide\""),
        ("wake_k_std: 2", "wake_k_std: -2", "std of field 'wake_k'"),
        ("wake_k_std: 2", "wake_k_std: 0", "std of field 'wake_k' must be above 0, got [0.0]"),
        ("volume_u_std: [2, 2, 2]", "volume_u_std: [2, 0, 2]", "std of field 'volume_u' must be above 0"),
        ("wake_k_std: 2", "wake_k_std: .nan", "wake_k_std must be"),
        ("[0.5, 0.5, 0.5]", "0.5", "std of field 'volume_u'"),
        ("raw_pos_min: -3", "raw_pos_min: -3: -4", "is no YAML of plain keys"),
        (whole, "- 1\n- 2", "is no YAML of plain keys"),
    ];
    let line = workplace.line(&["--stats", "{}/stats.yaml", "--dry-run"]);
    let write = |text: &str| std::fs::write(workplace.path("stats.yaml"), text).unwrap();
    write(whole);
    run(&line).unwrap();
    for (from, to, expected) in cases {
        assert!(whole.contains(from), "{from}");
        write(&whole.replacen(from, to, 1));
        let error = workplace.refusal(&line);
        assert!(error.contains("--stats: ") && error.contains(expected), "expected '{expected}', got '{error}'");
        assert!(error.contains("stats.yaml"), "{error}");
    }
}

#[test]
fn a_dry_run_reads_all_weights() {
    let stored = |name: &str| format!("{}/../tests/torch_files/{name}", env!("CARGO_MANIFEST_DIR"));
    let workplace = Workplace::new();
    let statistics = json!({
        "position": {"shift": [0, 0, 0], "scale": [1, 1, 1]},
        "fields": [
            {"domain": "surface", "name": "pressure", "mean": [0], "std": [1]},
            {"domain": "volume", "name": "velocity", "mean": [0, 0, 0], "std": [1, 1, 1]},
            {"domain": "volume", "name": "pressure", "mean": [0], "std": [1]},
        ],
    });
    std::fs::write(workplace.path("statistics.json"), statistics.to_string()).unwrap();
    let words = "predict --weights {}/model.th --stats {}/statistics.json --geometry {}/body.stl \
                 --volume {}/volume.npy --anchors 8 --out {}/out --dry-run";
    let folder = workplace.folder.path().display().to_string();
    let line: Vec<_> = words.split_whitespace().map(|word| word.replace("{}", &folder)).collect();

    let mut bytes = std::fs::read(stored("new.th")).unwrap();
    std::fs::write(workplace.path("model.th"), &bytes).unwrap();
    run(&line).unwrap();
    // A changed number does not have the checksum of its storage.
    let weights = safetensors::load(stored("weights.safetensors"), &Device::Cpu).unwrap();
    let weight = numbers(&weights["physics_blocks.1.norm2.bias"]);
    let pattern: Vec<u8> = weight.into_iter().flat_map(f32::to_le_bytes).collect();
    let at = bytes.windows(pattern.len()).position(|window| window == pattern).unwrap();
    bytes[at] ^= 1;
    std::fs::write(workplace.path("model.th"), &bytes).unwrap();
    let error = workplace.refusal(&line);
    assert!(error.contains("--weights: ") && error.contains("physics_blocks.1.norm2.bias"), "{error}");
}

#[test]
fn truth_must_fit_what_is_predicted() {
    let workplace = Workplace::new();
    write_npy(&workplace.path("short.npy"), &[[0.0]; 5]);
    write_npy(&workplace.path("wide.npy"), &[[0.0; 2]; 23]);
    write_npy(&workplace.path("nan.npy"), &[[f32::NAN]; 23]);
    let other = HashMap::from([(
        "temperature",
        Tensor::zeros((23, 1), candle_mixed_attention::candle_core::DType::F32, &Device::Cpu).unwrap(),
    )]);
    safetensors::save(&other, workplace.path("other.safetensors")).unwrap();
    let cases = [
        ("wake={}/short.npy", "--truth wake: 'k' must have shape [23, 1], got [5, 1]"),
        ("wake={}/wide.npy", "--truth wake: 'k' must have shape [23, 1], got [23, 2]"),
        ("wake={}/nan.npy", "point 0 has component 0 = NaN"),
        ("wake={}/other.safetensors", "has none of the fields [\"k\"]; it has [\"temperature\"]"),
        ("wake={}/missing.safetensors", "cannot open"),
        ("volume={}/short.npy", "--truth volume: the domain has 2 fields, which take a .safetensors file"),
    ];
    for (truth, expected) in cases {
        let error = workplace.refusal(&workplace.line(&["--truth", truth]));
        assert!(error.contains(expected), "expected '{expected}', got '{error}'");
    }
}

#[test]
fn networks_that_points_cannot_feed_are_refused() {
    let workplace = Workplace::new();
    workplace.write_network("one_domain_2d");
    let error = workplace.refusal(&workplace.line(&[]));
    assert!(error.contains("positions have 2 coordinates; this program predicts in 3"), "{error}");

    workplace.write_network("one_domain");
    let folder = workplace.folder.path().display().to_string();
    let line = "predict --weights {}/model.safetensors --config {}/model.json --geometry {}/body.stl \
                --surface {}/surface.npy --out {}/out";
    let line: Vec<_> = line.split_whitespace().map(|word| word.replace("{}", &folder)).collect();
    let error = workplace.refusal(&line);
    assert!(error.contains("--geometry is not needed"), "{error}");
}

#[test]
fn a_shard_is_a_part_of_the_run_whatever_its_index_is_called() {
    let workplace = Workplace::new();
    let weights = safetensors::load(workplace.path("model.safetensors"), &Device::Cpu).unwrap();
    let shard = |weights: &HashMap<String, Tensor>| safetensors::save(weights, workplace.path("part")).unwrap();
    shard(&weights);
    let map: HashMap<&String, &str> = weights.keys().map(|name| (name, "part")).collect();
    std::fs::write(workplace.path("all.json"), json!({"weight_map": map}).to_string()).unwrap();
    let options = ["--weights", "{}/all.json"];
    workplace.run(&options).unwrap();
    let resumed = [&options[..], &["--resume"]].concat();
    workplace.run(&resumed).unwrap();
    // Of the same length, and the index is the same.
    let mut changed = weights.clone();
    let bias = changed.get_mut("physics_blocks.0.mlp.fc1.bias").unwrap();
    *bias = (bias.clone() + 0.5).unwrap();
    shard(&changed);
    let error = format!("{:#}", workplace.run(&resumed).unwrap_err());
    assert!(error.contains("--resume: weights was"), "{error}");
}

#[test]
#[cfg(unix)]
fn a_sweep_follows_no_link_in_its_folder() {
    use std::os::unix::fs::symlink;
    let workplace = Workplace::new();
    std::fs::write(workplace.path("bodies.csv"), "name\na\nb\n").unwrap();
    for name in ["out", "elsewhere"] {
        std::fs::create_dir(workplace.path(name)).unwrap();
    }
    std::fs::write(workplace.path("victim"), "untouched").unwrap();
    symlink(workplace.path("elsewhere"), workplace.path("out/a")).unwrap();
    symlink(workplace.path("victim"), workplace.path("out/summary.csv")).unwrap();
    let error = format!("{:#}", workplace.run(&["--sweep", "{}/bodies.csv"]).unwrap_err());
    assert!(error.contains("1 of 2 rows failed") && error.contains("out/a is a link"), "{error}");
    assert!(workplace.files("elsewhere").is_empty());
    assert_eq!(std::fs::read(workplace.path("victim")).unwrap(), b"untouched");
    assert!(std::fs::symlink_metadata(workplace.path("out/summary.csv")).unwrap().is_file());
}

#[test]
fn counts_that_no_memory_holds_are_refused() {
    let workplace = Workplace::new();
    let largest = usize::MAX.to_string();
    for option in ["--anchors", "--geometry-points", "--supernodes", "--slice-points", "--seeds"] {
        let error = Arguments::try_parse_from(workplace.line(&[option, &largest])).unwrap_err().to_string();
        assert!(error.contains("expected a whole number from 1 to"), "{option}: {error}");
    }
    for (option, count) in [("--line", &*largest), ("--streamlines", &largest), ("--line", "1048577")] {
        let line = format!("volume:0,0,0:1,0,0:{count}");
        let error = Arguments::try_parse_from(workplace.line(&[option, &line])).unwrap_err().to_string();
        assert!(error.contains("1 to 1048576 points"), "{option}: {error}");
    }
    let error = workplace.refusal(&workplace.line(&["--streamlines", "volume:0,0,0:1,0,0:4097"]));
    assert!(error.contains("--streamlines volume: at most 4096 lines, got 4097"), "{error}");
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let workplace = Workplace::new();
    let error = format!("{:#}", workplace.run(&["--out", "{}/body.stl/out"]).unwrap_err());
    assert!(error.contains("--out: cannot create folder"), "{error}");
}
