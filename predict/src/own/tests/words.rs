//! Units, boxes, and what is said of them.

use super::*;
use crate::input::Location;

fn scaled_points(name: &str, workplace: &Workplace, by: f32, points: &[[f32; 3]]) {
    write_npy(&workplace.path(name), &points.iter().map(|point| point.map(|x| x * by)).collect::<Vec<_>>());
}

#[test]
fn other_units_are_scaled() {
    let workplace = Workplace::new();
    workplace.run(&[]).unwrap();
    let expected = numbers(&workplace.tensors("volume.safetensors")["u"]);
    let mut body = surface_mesh([1.1, 0.6, 0.8], 7, 12);
    body.scale(1000.0);
    write_stl(&workplace.path("millimetres.stl"), &body);
    scaled_points("centimetres.npy", &workplace, 100.0, &random_points(61, 1));
    let files = ["--geometry", "{}/millimetres.stl", "--volume", "{}/centimetres.npy"];
    let error = format!("{:#}", workplace.run(&[&files[..], &["--overwrite"]].concat()).unwrap_err());
    assert!(error.contains("outside the box [-3, 3] of the statistics"), "{error}");
    let scales = ["--scale", "0.001", "--scale", "volume=0.01", "--overwrite"];
    workplace.run(&[&files[..], &scales].concat()).unwrap();
    let found = numbers(&workplace.tensors("volume.safetensors")["u"]);
    for (found, expected) in found.iter().zip(&expected) {
        assert!((found - expected).abs() < 1e-3 * expected.abs().max(1.0), "{found} for {expected}");
    }
    let refusal = |scale: &str| format!("{:#}", workplace.run(&["--scale", scale, "--overwrite"]).unwrap_err());
    assert!(refusal("0").contains("expected [DOMAIN=]FACTOR with a factor above 0, got '0'"));
    assert!(refusal("tail=2").contains("--scale: the network has no domain 'tail'"));
}

#[test]
fn points_outside_are_refused_dropped_or_moved() {
    let workplace = Workplace::new();
    let mut points = random_points(61, 1);
    workplace.run(&[]).unwrap();
    let usual = workplace.tensors("volume.safetensors");
    points[7] = [0.5, 9.0, 0.5];
    write_npy(&workplace.path("stray.npy"), &points);
    let run = |more: &[&str]| {
        workplace.run(&[&["--volume", "{}/stray.npy", "--anchor-points", "volume={}/volume.npy"], more].concat())
    };
    let error = format!("{:#}", run(&["--out", "{}/other"]).unwrap_err());
    let file = workplace.path("stray.npy").display().to_string();
    assert!(error.contains(&format!("--volume {file}: point 7 has y = 9, outside the box")), "{error}");

    run(&["--outside", "drop", "--overwrite"]).unwrap();
    let dropped = workplace.tensors("volume.safetensors");
    assert_eq!(numbers(&dropped["positions"]), points.as_flattened(), "all rows are there");
    for (at, (found, expected)) in numbers(&dropped["u"]).iter().zip(numbers(&usual["u"])).enumerate() {
        assert_eq!(found.is_nan(), at / 3 == 7, "{at}");
        assert!(found.is_nan() || (found - expected).abs() < 1e-4);
    }
    // What has no field has no error.
    let truth = HashMap::from([("p", (&usual["p"] + 0.5).unwrap())]);
    safetensors::save(&truth, workplace.path("truth.safetensors")).unwrap();
    run(&["--outside", "drop", "--truth", "volume={}/truth.safetensors", "--overwrite"]).unwrap();
    let metrics: Value = serde_json::from_slice(&workplace.files("out")["metrics.json"]).unwrap();
    assert_eq!(metrics["volume_p"]["values"], 60);
    assert!((metrics["volume_p"]["mean_absolute"].as_f64().unwrap() - 0.5).abs() < 1e-4);

    run(&["--outside", "clamp", "--overwrite"]).unwrap();
    let clamped = numbers(&workplace.tensors("volume.safetensors")["u"]);
    points[7] = [0.5, 3.0, 0.5];
    write_npy(&workplace.path("stray.npy"), &points);
    run(&["--overwrite"]).unwrap();
    let moved = numbers(&workplace.tensors("volume.safetensors")["u"]);
    assert!(clamped.iter().zip(&moved).all(|(a, b)| (a - b).abs() < 1e-4));
}

#[test]
fn streamlines_follow_the_field_that_is_called_the_velocity() {
    let workplace = Workplace::new();
    let seeds = "volume:-2,-1,0:-2,1,0:5";
    workplace.run(&["--streamlines", seeds]).unwrap();
    let path = workplace.path("out/streamlines_1_volume.vtp");
    let arrays = super::car::arrays(&path, Location::Points);
    assert_eq!(arrays, ["u", "p", "time"]);
    let refusal = |more: &[&str]| format!("{:#}", workplace.run(&[more, &["--overwrite"]].concat()).unwrap_err());
    assert!(
        refusal(&["--velocity", "p"]).contains("--velocity: there is no field 'p' of three components, but [\"u\"]")
    );
    assert!(
        refusal(&["--streamlines", "wake:0,0,0:1,0,0:5"])
            .contains("--streamlines: which field of 'wake' is the velocity? --velocity says it")
    );
    assert!(refusal(&["--streamlines", "volume:0,0,9:1,0,9:5"]).contains("outside the box"));
    workplace.run(&["--velocity", "u", "--streamlines", seeds, "--compress", "lz4", "--overwrite"]).unwrap();
    assert_eq!(super::car::arrays(&path, Location::Points), arrays);
}

#[test]
fn a_run_says_how_it_was_made() {
    let workplace = Workplace::new();
    workplace.run(&[]).unwrap();
    let state: Value = serde_json::from_slice(&std::fs::read(workplace.path("out/run.json")).unwrap()).unwrap();
    let origin = &state["origin"];
    assert!(origin["program"].as_str().unwrap().starts_with("predict "));
    assert!(origin["files"]["volume"].as_str().unwrap().ends_with("volume.npy"));
    assert!(origin["files"]["points wake"].as_str().unwrap().ends_with("wake.npy"));
    assert!(origin["command"].is_array() && origin["predicted"].as_str().unwrap().ends_with('Z'));
    let points = origin["points"].as_u64().unwrap();
    assert_eq!(points, 61 + 23 + 7 * 12 + 2);
    assert!(origin["seconds"].as_f64().unwrap() > 0.0 && origin["points_per_second"].as_f64().unwrap() > 0.0);
    assert!(state["inputs"]["weights"]["crc32"].is_string() && state["inputs"]["seed"].is_number());
}
