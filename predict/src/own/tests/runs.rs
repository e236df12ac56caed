//! Runs that succeed.

use super::*;
use crate::ellipsoid::{Case, Flow};
use crate::input::{Location, Table};
use crate::job::FlowModel;
use crate::metrics::FieldError;
use crate::metrics::Metrics;

#[test]
fn three_domains_are_predicted_and_drawn() {
    let workplace = Workplace::new();
    workplace.run(&["--npz"]).unwrap();
    let names: Vec<_> = workplace.files("out").into_keys().collect();
    let expected = [
        "forces.json",
        "run.json",
        "surface.npz",
        "surface.safetensors",
        "surface.vtp",
        "surface_p.png",
        "volume.npz",
        "volume.safetensors",
        "volume.vtp",
        "volume_p.png",
        "volume_u.png",
        "wake.npz",
        "wake.safetensors",
        "wake.vtp",
        "wake_k.png",
    ];
    assert_eq!(names, expected);

    // The chunks of the run are those of one pass of the library.
    let arguments = Arguments::try_parse_from(workplace.line(&[])).unwrap();
    let mut body = job(&arguments).body.encode(&mut Alone::default()).unwrap();
    for (domain, count) in [("volume", 61), ("wake", 23)] {
        let written = workplace.tensors(&format!("{domain}.safetensors"));
        let positions = numbers(&written["positions"]);
        let seed = if domain == "volume" { 1 } else { 2 };
        assert_eq!(positions, random_points(count, seed).as_flattened());
        let fields = if domain == "volume" { vec![("u", 3), ("p", 1)] } else { vec![("k", 1)] };
        let predicted = body.predict(domain, 0, positions.as_chunks().0).unwrap();
        for ((field, width), values) in fields.into_iter().zip(predicted) {
            assert_eq!(written[field].dims(), [count, width]);
            for (written, whole) in numbers(&written[field]).iter().zip(values) {
                assert!((written - whole).abs() <= 5e-5, "{domain} {field}: {written} for {whole}");
            }
        }
    }
    let surface = workplace.tensors("surface.safetensors");
    assert_eq!(surface["p"].dims(), [7 * 12 + 2, 1], "the vertices of the body");
}

#[test]
fn the_format_of_a_file_does_not_matter() {
    let workplace = Workplace::new();
    let points = random_points(61, 1);
    let tensor =
        |points: &[[f32; 3]]| Tensor::from_slice(points.as_flattened(), (points.len(), 3), &Device::Cpu).unwrap();
    let tensors = HashMap::from([("other", tensor(&points[..2])), ("points", tensor(&points))]);
    safetensors::save(&tensors, workplace.path("points.safetensors")).unwrap();
    workplace.run(&[]).unwrap();
    workplace.run(&["--volume", "{}/points.safetensors#points", "--out", "{}/other"]).unwrap();
    let (first, second) = (workplace.files("out"), workplace.files("other"));
    assert_eq!(first.keys().collect::<Vec<_>>(), second.keys().collect::<Vec<_>>());
    for (name, bytes) in &first {
        assert!(bytes == &second[name], "{name} differs");
    }
}

#[test]
fn anchors_may_come_from_elsewhere_and_a_domain_need_not_be_predicted() {
    let workplace = Workplace::new();
    let elsewhere = ["--anchor-points", "volume={}/surface.npy", "--anchor-points", "wake={}/wake.npy"];
    let mut line = workplace.line(&elsewhere);
    let points = line.iter().position(|word| word == "--points").unwrap();
    line.drain(points..points + 2);
    super::run(&line).unwrap();
    let files = workplace.files("out");
    assert!(files.contains_key("volume.vtp") && !files.contains_key("wake.vtp"), "{:?}", files.keys());
    let own = workplace.tensors("volume.safetensors");
    workplace.run(&["--overwrite"]).unwrap();
    assert_ne!(
        numbers(&own["u"]),
        numbers(&workplace.tensors("volume.safetensors")["u"]),
        "other anchors, other fields"
    );
}

#[test]
fn true_fields_give_metrics_and_pictures_of_the_difference() {
    let workplace = Workplace::new();
    workplace.run(&[]).unwrap();
    assert!(!workplace.files("out").contains_key("metrics.json"));
    let plain = workplace.files("out");

    let shifted = |name: &str, field: &str| (&workplace.tensors(name)[field] + 0.125).unwrap();
    let volume = HashMap::from([
        ("volume_u", shifted("volume.safetensors", "u")),
        ("unknown", shifted("volume.safetensors", "p")),
    ]);
    safetensors::save(&volume, workplace.path("truth.safetensors")).unwrap();
    let surface: Vec<_> = numbers(&shifted("surface.safetensors", "p")).into_iter().map(|value| [value]).collect();
    write_npy(&workplace.path("truth.npy"), &surface);
    let truths = ["--truth", "volume={}/truth.safetensors", "--truth", "surface={}/truth.npy", "--overwrite"];
    workplace.run(&truths).unwrap();

    let arguments = Arguments::try_parse_from(workplace.line(&truths)).unwrap();
    let job = job(&arguments);
    let missing = job.places.iter().filter_map(|place| Some((&*place.domain.name, place.truth.as_ref()?.missing())));
    assert_eq!(missing.collect::<Vec<_>>(), [("surface", &[][..]), ("volume", &["p".to_string()])]);

    let files = workplace.files("out");
    let metrics: Metrics = serde_json::from_slice(&files["metrics.json"]).unwrap();
    assert_eq!(metrics.keys().collect::<Vec<_>>(), ["surface_p", "volume_u"]);
    for error in metrics.values() {
        assert!((error.mean_absolute - 0.125).abs() < 1e-5 && (error.max_absolute - 0.125).abs() < 1e-5, "{error:?}");
    }
    for (place, field, components) in [("surface", "p", 1), ("volume", "u", 3)] {
        let tensors = workplace.tensors(&format!("{place}.safetensors"));
        let error = &tensors[&format!("{field}_error")];
        assert_eq!(error.dims()[1], components);
        assert!(numbers(error).iter().all(|error| (error + 0.125).abs() < 1e-5), "predicted minus true");
    }
    assert!(!workplace.tensors("volume.safetensors").contains_key("p_error"), "its truth is not known");
    // Predicted, true and their difference stand side by side; what is not known is drawn alone.
    let width = |png: &[u8]| u32::from_be_bytes(png[16..20].try_into().unwrap());
    for (name, panels) in [("surface_p.png", 3), ("volume_u.png", 3), ("volume_p.png", 1)] {
        let one = width(&plain[name]);
        assert_eq!(width(&files[name]).div_ceil(one), panels, "{name}");
    }
}

#[test]
fn the_demo_as_a_model_of_ones_own_is_as_good() {
    let workplace = Workplace::new();
    let sample = format!("{DATA}/sample.safetensors");
    let tensors = safetensors::load(&sample, &Device::Cpu).unwrap();
    for (domain, fields) in [("surface", &["pressure"][..]), ("volume", &["velocity", "pressure"])] {
        let field = |field: &&str| (field.to_string(), tensors[&format!("exact.queries.{domain}_{field}")].clone());
        let truth: HashMap<_, _> = fields.iter().map(field).collect();
        safetensors::save(&truth, workplace.path(&format!("{domain}.safetensors"))).unwrap();
    }
    let line = "predict --weights DATA/ellipsoid.safetensors --config DATA/ellipsoid.json --condition alpha=12 \
                --condition beta=-7 --geometry SAMPLE#geometry.pos --surface SAMPLE#surface.queries \
                --volume SAMPLE#volume.queries --anchor-points surface=SAMPLE#surface.anchors \
                --anchor-points volume=SAMPLE#volume.anchors --truth surface={}/surface.safetensors \
                --truth volume={}/volume.safetensors --anchors 512 --supernodes 96 --out {}/out --slice-points 60";
    let folder = workplace.folder.path().display().to_string();
    let word = |word: &str| word.replace("SAMPLE", &sample).replace("DATA", DATA).replace("{}", &folder);
    super::run(&line.split_whitespace().map(word).collect::<Vec<_>>()).unwrap();
    let metrics: Metrics = serde_json::from_slice(&workplace.files("out")["metrics.json"]).unwrap();
    // The errors of the sample itself are 0.9, 0.4 and 2.0 %; here other points are the supernodes.
    for (field, most) in [("surface_pressure", 0.015), ("volume_velocity", 0.006), ("volume_pressure", 0.03)] {
        let error = metrics[field].relative_l2;
        assert!(error > 1e-4 && error < most, "{field}: {error}");
    }
}

#[test]
fn flat_statistics_are_those_of_the_description() {
    let workplace = Workplace::new();
    // A box onto 0 to 1000 is another network than the usual one, so both are written in their own form.
    let mut description: Value = serde_json::from_slice(&std::fs::read(workplace.path("model.json")).unwrap()).unwrap();
    description["normalisation"]["position"] = json!({"min": [-3, -3, -3], "max": [3, 3, 3], "scale": 1000});
    std::fs::write(workplace.path("model.json"), description.to_string()).unwrap();
    let mut keys = json!({"raw_pos_min": -3, "raw_pos_max": [3, 3, 3], "wake_other_mean": 7});
    for field in description["normalisation"]["fields"].as_array().unwrap() {
        let name = format!("{}_{}", field["domain"].as_str().unwrap(), field["name"].as_str().unwrap());
        keys[format!("{name}_mean")] = field["mean"].clone();
        keys[format!("{name}_std")] = field["std"].clone();
    }
    std::fs::write(workplace.path("stats.json"), keys.to_string()).unwrap();
    let yaml = keys.as_object().unwrap().iter().map(|(key, value)| format!("{key}: {value}\n"));
    std::fs::write(workplace.path("stats.yaml"), yaml.collect::<String>()).unwrap();
    workplace.run(&[]).unwrap();
    for name in ["stats.json", "stats.yaml"] {
        workplace.run(&["--stats", &format!("{{}}/{name}"), "--out", &format!("{{}}/{name}.out")]).unwrap();
        assert_eq!(workplace.files(&format!("{name}.out")), workplace.files("out"), "{name}");
    }
}

#[test]
fn untied_square_weights_are_read_either_way_round() {
    let workplace = Workplace::new();
    workplace.write_network("untied_equal");
    let description: Value = serde_json::from_slice(&std::fs::read(workplace.path("model.json")).unwrap()).unwrap();
    let stored = description["model"]["untied_square_banks"].as_str().unwrap();
    let wake = description["model"]["domains"].as_array().unwrap().iter().any(|domain| domain["name"] == "wake");
    assert!(!wake, "{description}");
    let run = |name: &str, more: &[&str]| {
        let mut line = workplace.line(&[&["--out", &format!("{{}}/{name}")], more].concat());
        let at = line.iter().position(|word| word == "--points").unwrap();
        line.drain(at..at + 2);
        super::run(&line).unwrap();
        workplace.files(name).remove("volume.vtp").unwrap()
    };
    let usual = run("usual", &[]);
    let [plain, transposed] = ["plain", "transposed"].map(|kind| run(kind, &["--square-banks", kind]));
    assert!(plain != transposed);
    assert!(usual == if stored == "plain" { plain } else { transposed });
}

#[test]
fn a_dry_run_writes_nothing() {
    let workplace = Workplace::new();
    workplace.run(&["--dry-run"]).unwrap();
    assert!(!workplace.path("out").exists());
}

#[test]
fn a_run_is_resumed_only_with_the_same_input() {
    let workplace = Workplace::new();
    workplace.run(&[]).unwrap();
    let whole = workplace.files("out");
    workplace.run(&["--resume"]).unwrap();
    assert_eq!(workplace.files("out"), whole);

    let refusal = |more: &[&str]| format!("{:#}", workplace.run(more).unwrap_err());
    assert!(refusal(&[]).contains("--resume goes on with it, --overwrite begins again"));
    assert!(refusal(&["--resume", "--seed", "1"]).contains("--resume: seed was 0 when the run began and is 1 now"));
    assert!(refusal(&["--resume", "--dtype", "bf16"]).contains("dtype was \"f32\""));
    assert!(refusal(&["--resume", "--supernodes", "7"]).contains("supernodes was null"));
    write_npy(&workplace.path("wake.npy"), &random_points(23, 77));
    assert!(refusal(&["--resume"]).contains("--resume: points was"));
    assert_eq!(workplace.files("out"), whole);
}

#[test]
fn half_precision_runs() {
    let workplace = Workplace::new();
    workplace.run(&[]).unwrap();
    let exact = numbers(&workplace.tensors("volume.safetensors")["u"]);
    workplace.run(&["--dtype", "bf16", "--overwrite"]).unwrap();
    let half = numbers(&workplace.tensors("volume.safetensors")["u"]);
    let largest = exact.iter().fold(0f32, |largest, value| largest.max(value.abs()));
    let difference = exact.iter().zip(&half).fold(0f32, |most, (a, b)| most.max((a - b).abs()));
    assert!(difference > 0.0 && difference < 0.06 * largest, "{difference} of {largest}");
}

/// Relative L2 errors of velocity and pressure in a plane beside an ellipsoid, by anchors that are drawn from elsewhere.
#[test]
fn an_stl_alone_is_predicted_as_well_as_with_the_anchors_of_training() {
    let (axes, alpha, beta) = ([1.1, 0.6, 0.8], 10.0, 5.0);
    let case = Case::new(axes, alpha, beta).unwrap();
    let flow = Flow::new(&case);
    let workplace = Workplace::new();
    write_stl(&workplace.path("body.stl"), &surface_mesh(axes, 60, 90));
    let predicted = |seed: u64, more: &[&str]| {
        let line = "predict --weights DATA/ellipsoid.safetensors --config DATA/ellipsoid.json --condition alpha=10 \
                    --condition beta=5 --geometry {}/body.stl --slice-points 61 --overwrite --out {}/out";
        let folder = workplace.folder.path().display().to_string();
        let words = line.split_whitespace().chain(more.iter().copied()).map(|word| word.replace("DATA", DATA));
        let line: Vec<_> =
            words.chain(["--seed".into(), seed.to_string()]).map(|word| word.replace("{}", &folder)).collect();
        super::run(&line).unwrap();
        let tensors = workplace.tensors("volume.safetensors");
        let positions: Vec<[f32; 3]> = numbers(&tensors["positions"]).as_chunks().0.to_vec();
        (positions, [numbers(&tensors["velocity"]), numbers(&tensors["pressure"])])
    };
    let errors = |positions: &[[f32; 3]], fields: &[Vec<f32>; 2]| -> [f64; 2] {
        let exact: Vec<_> = positions.iter().map(|point| flow.at(point.map(f64::from))).collect();
        let velocity: Vec<f32> = exact.iter().flat_map(|at| at.velocity.map(|x| x as f32)).collect();
        let pressure: Vec<f32> = exact.iter().map(|at| at.pressure as f32).collect();
        [(&fields[0], velocity), (&fields[1], pressure)].map(|(predicted, exact)| {
            let mut error = FieldError::default();
            error.add(predicted, &exact).unwrap();
            error.metrics().relative_l2
        })
    };
    let mut sums = [[0.0; 2]; 3];
    for seed in 0..3 {
        let (positions, fields) = predicted(seed, &[]);
        assert!(positions.len() > 2000 && positions.iter().all(|point| point[1].abs() < 1e-6), "the plane y = 0");
        let mut trained = crate::demo::encoded(&case, 1024, seed);
        let [velocity, pressure] = &trained.predict("volume", 0, &positions).unwrap()[..] else { panic!("two fields") };
        let plane: Vec<_> = positions.iter().map(|point| point.map(f64::from)).collect();
        write_npy(&workplace.path("plane.npy"), &plane.iter().map(|point| point.map(|x| x as f32)).collect::<Vec<_>>());
        let (_, elsewhere) = predicted(seed, &["--volume", "{}/plane.npy", "--anchor-points", "volume={}/plane.npy"]);
        let all = [&fields, &[velocity.clone(), pressure.clone()], &elsewhere];
        for (sums, fields) in sums.iter_mut().zip(all) {
            let errors = errors(&positions, fields);
            sums.iter_mut().zip(errors).for_each(|(sum, error)| *sum += error / 3.0);
        }
    }
    let [stl_alone, trained, plane] = sums;
    for (field, at) in [("velocity", 0), ("pressure", 1)] {
        assert!(stl_alone[at] < 1.3 * trained[at], "{field}: {} against {}", stl_alone[at], trained[at]);
        assert!(plane[at] > 2.0 * trained[at], "{field}: anchors in a plane give {}", plane[at]);
    }
}

#[test]
fn several_draws_of_anchors_give_mean_and_spread() {
    let workplace = Workplace::new();
    workplace.run(&["--seeds", "3"]).unwrap();
    let of_three = workplace.tensors("volume.safetensors");
    workplace.run(&["--overwrite"]).unwrap();
    let of_one = workplace.tensors("volume.safetensors");
    assert_eq!(of_three["u_spread"].dims(), of_three["u"].dims());
    assert!(numbers(&of_three["u_spread"]).iter().all(|&spread| spread > 0.0));
    assert!(!of_one.contains_key("u_spread") && numbers(&of_one["u"]) != numbers(&of_three["u"]));
    // The first of the three draws is the only one of the other run.
    let (mean, spread, one) = (numbers(&of_three["p"]), numbers(&of_three["p_spread"]), numbers(&of_one["p"]));
    for ((mean, spread), one) in mean.iter().zip(spread).zip(one) {
        // Of three numbers none is farther from their mean than 2/√3 of the standard deviation.
        assert!((mean - one).abs() <= 1.16 * spread + 1e-5, "{one} is not one of those with mean {mean} ± {spread}");
    }
}

#[test]
fn a_domain_is_drawn_in_several_planes() {
    let workplace = Workplace::new();
    workplace.run(&["--slice", "volume:y=0.5", "--slice", "volume:x=-1"]).unwrap();
    let names: Vec<_> = workplace.files("out").into_keys().filter(|name| name.starts_with("volume_")).collect();
    assert_eq!(names, ["volume_p_x-1.png", "volume_p_y0_5.png", "volume_u_x-1.png", "volume_u_y0_5.png"]);
}

#[test]
fn fields_are_told_along_lines() {
    let workplace = Workplace::new();
    workplace.run(&["--line", "volume:-1,0,2:1,0,2:5", "--line", "wake:0,0,0:0,0,-2:3"]).unwrap();
    let files = workplace.files("out");
    let text = |name: &str| String::from_utf8(files[name].clone()).unwrap();
    let volume = text("line_1_volume.csv");
    let rows: Vec<_> = volume.lines().collect();
    assert_eq!((rows.len(), rows[0]), (6, "distance,x,y,z,u_x,u_y,u_z,p"));
    let row: Vec<f32> = rows[4].split(',').map(|number| number.parse().unwrap()).collect();
    assert_eq!(row[..4], [1.5, 0.5, 0.0, 2.0]);
    assert!(workplace.files("out").contains_key("line_1_volume.png"));
    let mut body =
        job(&Arguments::try_parse_from(workplace.line(&[])).unwrap()).body.encode(&mut Alone::default()).unwrap();
    let predicted = body.predict("volume", 0, &[[0.5, 0.0, 2.0]]).unwrap();
    for (told, predicted) in row[4..].iter().zip(predicted.concat()) {
        assert!((told - predicted).abs() < 5e-5, "{told} for {predicted}");
    }
    assert!(text("line_2_wake.csv").starts_with("distance,x,y,z,k\n0,0,0,0,"));
    let refusal = |line: &str| format!("{:#}", workplace.run(&["--line", line, "--out", "{}/other"]).unwrap_err());
    assert!(refusal("t/il:0,0,0:1,1,1:3").contains("--line: the network has no domain 't/il'"));
    assert!(refusal("volume:0,0,0:0,0,9:3").contains("--line volume: point 1 has z = 4.5, outside the box"));
}

#[test]
fn a_sweep_predicts_row_after_row_and_tells_what_failed() {
    let workplace = Workplace::new();
    workplace.write_table();
    let error = format!("{:#}", workplace.run(&["--sweep", "{}/bodies.csv"]).unwrap_err());
    assert!(error.contains("1 of 3 rows failed") && error.contains("broken: --geometry: cannot open"), "{error}");
    let summary = std::fs::read_to_string(workplace.path("out/summary.csv")).unwrap();
    let lines: Vec<_> = summary.lines().collect();
    assert!(lines.len() == 3 && lines[0].starts_with("name,predicted_area,"), "{summary}");
    assert!(lines[1].starts_with("first,") && lines[2].starts_with("second,"), "{summary}");
    // A row is what a run of its own is, and a sweep goes on.
    workplace.run(&["--geometry", "{}/other.stl", "--out", "{}/alone"]).unwrap();
    assert!(workplace.files("alone") == workplace.files("out/second"));
    workplace.run(&["--sweep", "{}/bodies.csv", "--resume"]).unwrap_err();
    assert!(workplace.files("alone") == workplace.files("out/second"));
    assert_eq!(std::fs::read_to_string(workplace.path("out/summary.csv")).unwrap(), summary);
}

/// A VTK file of the faces of a mesh with a pressure at every cell.
fn write_vtp(path: &Path, mesh: &Mesh, pressure: &[f32]) {
    let join = |numbers: &mut dyn Iterator<Item = String>| numbers.collect::<Vec<_>>().join(" ");
    let array = |kind: &str, name: &str, components: usize, numbers: String| {
        format!(
            r#"<DataArray type="{kind}" Name="{name}" NumberOfComponents="{components}" format="ascii">{numbers}</DataArray>"#
        )
    };
    let text = format!(
        r#"<VTKFile type="PolyData"><PolyData><Piece NumberOfPoints="{}" NumberOfPolys="{}"><CellData>{}</CellData>
        <Points>{}</Points><Polys>{}{}</Polys></Piece></PolyData></VTKFile>"#,
        mesh.points().len(),
        mesh.ends().len(),
        array("Float32", "pMean", 1, join(&mut pressure.iter().map(f32::to_string))),
        array("Float32", "Points", 3, join(&mut mesh.points().as_flattened().iter().map(f32::to_string))),
        array("Int64", "connectivity", 1, join(&mut mesh.corners().iter().map(u32::to_string))),
        array("Int64", "offsets", 1, join(&mut mesh.ends().iter().map(usize::to_string))),
    );
    std::fs::write(path, text).unwrap();
}

#[test]
fn a_mesh_with_cell_data_comes_back_with_fields_errors_and_forces_at_its_cells() {
    let workplace = Workplace::new();
    let mesh = surface_mesh([1.1, 0.6, 0.8], 7, 12);
    let faces = mesh.ends().len();
    // Hydrostatic: the force is known.
    let height =
        |face: &[u32]| face.iter().map(|&corner| mesh.points()[corner as usize][2]).sum::<f32>() / face.len() as f32;
    let pressure: Vec<f32> = mesh.faces().map(|face| -height(face)).collect();
    write_vtp(&workplace.path("surface.vtp"), &mesh, &pressure);
    workplace
        .run(&["--surface", "{}/surface.vtp", "--truth", "surface=pMean:p", "--density", "2", "--reference-area", "3"])
        .unwrap();

    let tensors = workplace.tensors("surface.safetensors");
    assert_eq!(tensors["p"].dims(), [faces, 1]);
    let (predicted, error) = (numbers(&tensors["p"]), numbers(&tensors["p_error"]));
    for ((predicted, error), truth) in predicted.iter().zip(error).zip(&pressure) {
        assert!((predicted - error - truth).abs() < 1e-5);
    }
    let files = workplace.files("out");
    // Its cells are drawn as faces: they cover the body, which points at their centres would not.
    let coloured = |png: &[u8]| {
        let mut reader = png::Decoder::new(std::io::Cursor::new(png)).read_info().unwrap();
        let mut bytes = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut bytes).unwrap();
        let (pixels, _) = bytes.as_chunks::<3>();
        pixels.iter().filter(|[red, green, blue]| red.abs_diff(*green).max(green.abs_diff(*blue)) > 30).count()
    };
    workplace.run(&["--out", "{}/vertices"]).unwrap();
    let (cells, vertices) = (&files["surface_p.png"], &workplace.files("vertices")["surface_p.png"]);
    let ratio = coloured(cells) as f64 / (3 * coloured(vertices)) as f64;
    assert!((0.8..1.2).contains(&ratio), "{ratio}");
    let written = String::from_utf8_lossy(&files["surface.vtp"]).into_owned();
    assert!(written.contains(&format!(r#"NumberOfPoints="{}""#, mesh.points().len())));
    assert!(written.contains(&format!(r#"NumberOfPolys="{faces}""#)) && written.contains(r#"<CellData Scalars="p">"#));
    let metrics: Metrics = serde_json::from_slice(&files["metrics.json"]).unwrap();
    assert!(metrics["surface_p"].weighted_relative_l2.is_some());
    let forces: Value = serde_json::from_slice(&files["forces.json"]).unwrap();
    let lift = forces["true"]["force"][2].as_f64().unwrap();
    assert!((lift / crate::solid::volume(&mesh) - 1.0).abs() < 0.05, "{lift}");
    let coefficient = forces["true"]["coefficients"]["lift"].as_f64().unwrap();
    assert!((coefficient - lift / 3.0).abs() < 1e-9);

    let refusal = |truth: &str| {
        let more = ["--surface", "{}/surface.vtp", "--truth", truth, "--out", "{}/other"];
        format!("{:#}", workplace.run(&more).unwrap_err())
    };
    assert!(refusal("surface=pMean:q").contains("--truth surface: there is no field 'q', but [\"p\"]"));
    assert!(refusal("surface=speed:p").contains("there is no array 'speed'"));
    assert!(refusal("surface=pMean:p,pMean:p").contains("field 'p' is given twice"));
}

#[test]
fn odd_names_come_back_from_every_file() {
    let name = "wall shear <\u{3c4}> & \"p\" #1";
    let workplace = Workplace::new();
    let path = workplace.path("model.json");
    let mut description: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let domains = description["model"]["domains"].as_array_mut().unwrap();
    let wake = domains.iter_mut().find(|domain| domain["name"] == "wake").unwrap();
    wake["fields"][0]["name"] = json!(name);
    let statistics = description["normalisation"]["fields"].as_array_mut().unwrap();
    statistics.iter_mut().find(|field| field["domain"] == "wake").unwrap()["name"] = json!(name);
    std::fs::write(path, description.to_string()).unwrap();
    let values: Vec<[f32; 1]> = (0..23).map(|at| [at as f32]).collect();
    write_npy(&workplace.path("truth.npy"), &values);
    for more in [&[][..], &["--compress", "zlib"]] {
        let options = ["--npz", "--truth", "wake={}/truth.npy", "--line", "wake:0,0,0:1,0,0:3", "--overwrite"];
        workplace.run(&[&options, more].concat()).unwrap();
        let expected = numbers(&workplace.tensors("wake.safetensors")[name]);
        let arrays = super::car::arrays(&workplace.path("out/wake.vtp"), Location::Points);
        assert_eq!(arrays, [name.to_string(), format!("{name}_error")]);
        for file in ["wake.vtp", "wake.npz", "wake.safetensors"] {
            let file = workplace.path("out").join(file).display().to_string();
            assert_eq!(Table::open(&file, Some(name)).unwrap().read(0..23).unwrap(), expected, "{file}");
        }
        let files = workplace.files("out");
        let metrics: Value = serde_json::from_slice(&files["metrics.json"]).unwrap();
        assert_eq!(metrics[&format!("wake_{name}")]["values"], 23);
        assert!(files.keys().all(|file| file.chars().all(|letter| letter.is_alphanumeric() || "-_.".contains(letter))));
    }
}
