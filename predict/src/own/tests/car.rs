//! What a CFD engineer has of a car: a boundary with cell data, a volume with polyhedra, a body of several solids. Here the
//! car is an ellipsoid, whose flow is known.

use super::*;
use crate::ellipsoid::{Case, Flow};
use crate::input::writer::{Mode, PLAIN, Style, Values, Writer};
use crate::input::{Input, Location};
use crate::metrics::Metrics;

const AXES: [f64; 3] = [1.1, 0.6, 0.8];

/// Cells along each side of the volume.
const SIDE: usize = 9;

/// Half its length.
const HALF: f64 = 2.25;

/// As pyvista writes.
const PACKED: Style = Style {
    mode: Mode::AppendedRaw,
    codec: Some(crate::input::writer::Codec::Zlib),
    word: 4,
    big_endian: false,
    block: 1000,
    line: None,
};

/// Corners of a unit cube in the order of a hexahedron, and its faces.
const CUBE: [[usize; 3]; 8] = [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 1], [1, 0, 1], [1, 1, 1], [0, 1, 1]];
const FACES: [[usize; 4]; 6] = [[0, 3, 2, 1], [4, 5, 6, 7], [0, 1, 5, 4], [1, 2, 6, 5], [2, 3, 7, 6], [3, 0, 4, 7]];

fn flow() -> Flow {
    Flow::new(&Case::new(AXES, 10.0, 5.0).unwrap())
}

/// The boundary: every quadrilateral of the body, with the pressure that acts there and its patch.
fn boundary(style: Style) -> Vec<u8> {
    let (mesh, flow) = (surface_mesh(AXES, 24, 36), flow());
    let centre = |face: &[u32]| -> [f64; 3] {
        let sum = |i: usize| face.iter().map(|&corner| f64::from(mesh.points()[corner as usize][i])).sum::<f64>();
        std::array::from_fn(|i| sum(i) / face.len() as f64)
    };
    let on_body = |[x, y, z]: [f64; 3]| {
        let reach = ((x / AXES[0]).powi(2) + (y / AXES[1]).powi(2) + (z / AXES[2]).powi(2)).sqrt();
        [x / reach, y / reach, z / reach]
    };
    let pressure = mesh.faces().map(|face| flow.surface_pressure(on_body(centre(face))) as f32).collect();
    let patch = mesh.faces().map(|face| if centre(face)[0] < 0.0 { 4 } else { 17 }).collect();
    let (points, faces) = (mesh.points().len(), mesh.ends().len());
    Writer::new(style, "PolyData")
        .tag(&format!(r#"<Piece NumberOfPoints="{points}" NumberOfPolys="{faces}"><PointData>"#))
        .array("id", 1, &Values::I64((0..points as i64).collect()))
        .tag("</PointData><CellData>")
        .array("pMeanTrim", 1, &Values::F32(pressure))
        .array("patch", 1, &Values::I32(patch))
        .tag("</CellData><Points>")
        .array("Points", 3, &Values::F32(mesh.points().as_flattened().to_vec()))
        .tag("</Points><Polys>")
        .array("connectivity", 1, &Values::I64(mesh.corners().iter().map(|&corner| i64::from(corner)).collect()))
        .array("offsets", 1, &Values::I64(mesh.ends().iter().map(|&end| end as i64).collect()))
        .tag("</Polys></Piece>")
        .finish("PolyData")
}

/// The volume: cubes around the body, every third of them a polyhedron, with the flow at their centres.
fn volume(style: Style, lists: bool) -> Vec<u8> {
    let length = 2.0 * HALF / SIDE as f64;
    let across = SIDE + 1;
    let place = |at: [usize; 3]| at.map(|i| i as f64 * length - HALF);
    let points: Vec<f64> =
        (0..across.pow(3)).flat_map(|at| place([at % across, at / across % across, at / across / across])).collect();
    let (mut corners, mut ends, mut kinds, mut centres) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut stream, mut stream_ends) = (Vec::new(), Vec::new());
    let (mut face_corners, mut face_ends, mut cell_faces, mut list_ends) = (vec![], vec![], vec![], vec![]);
    for at in 0..SIDE.pow(3) {
        let cell = [at % SIDE, at / SIDE % SIDE, at / SIDE / SIDE];
        let centre = place(cell).map(|x| x + length / 2.0);
        if (0..3).map(|i| (centre[i] / AXES[i]).powi(2)).sum::<f64>() < 1.5 {
            continue;
        }
        let own = CUBE.map(|[x, y, z]| ((cell[2] + z) * across + cell[1] + y) * across + cell[0] + x);
        corners.extend(own.map(|corner| corner as i64));
        ends.push(corners.len() as i64);
        let polyhedron = ends.len() % 3 == 0;
        kinds.push(if polyhedron { 42 } else { 12 });
        if polyhedron {
            stream.push(6);
            for face in FACES {
                stream.push(4);
                stream.extend(face.map(|corner| own[corner] as i64));
                cell_faces.push(face_ends.len() as i64);
                face_corners.extend(face.map(|corner| own[corner] as i64));
                face_ends.push(face_corners.len() as i64);
            }
        }
        stream_ends.push(if polyhedron { stream.len() as i64 } else { -1 });
        list_ends.push(cell_faces.len() as i64);
        centres.push(centre);
    }
    let flow = flow();
    let velocity = centres.iter().flat_map(|&centre| flow.at(centre).velocity.map(|x| x as f32)).collect();
    let pressure = centres.iter().map(|&centre| flow.at(centre).pressure).collect();
    let (count, cells) = (across.pow(3), kinds.len());
    let mut writer = Writer::new(style, "UnstructuredGrid");
    writer
        .tag(&format!(r#"<Piece NumberOfPoints="{count}" NumberOfCells="{cells}"><CellData>"#))
        .array("UMean", 3, &Values::F32(velocity))
        .array("pMean", 1, &Values::F64(pressure))
        .tag("</CellData><Points>")
        .array("Points", 3, &Values::F64(points))
        .tag("</Points><Cells>")
        .array("connectivity", 1, &Values::I64(corners))
        .array("offsets", 1, &Values::I64(ends))
        .array("types", 1, &Values::U8(kinds));
    if lists {
        writer
            .array("face_connectivity", 1, &Values::I64(face_corners))
            .array("face_offsets", 1, &Values::I64(face_ends))
            .array("polyhedron_to_faces", 1, &Values::I64(cell_faces))
            .array("polyhedron_offsets", 1, &Values::I64(list_ends));
    } else {
        writer.array("faces", 1, &Values::I64(stream)).array("faceoffsets", 1, &Values::I64(stream_ends));
    }
    writer.tag("</Cells></Piece>").finish("UnstructuredGrid")
}

/// The body in two solids.
fn body() -> String {
    let mesh = surface_mesh(AXES, 24, 36);
    let mut solids = [String::from("solid front\n"), String::from("solid rear\n")];
    for corners in mesh.triangles() {
        let points = corners.map(|corner| mesh.points()[corner as usize]);
        let rear = points.iter().map(|point| point[0]).sum::<f32>() > 0.0;
        let vertices = points.map(|[x, y, z]| format!("      vertex {x} {y} {z}\n")).concat();
        solids[usize::from(rear)] +=
            &format!("  facet normal 0 0 0\n    outer loop\n{vertices}    endloop\n  endfacet\n");
    }
    solids.concat().replace("solid rear", "endsolid front\nsolid rear") + "endsolid rear\n"
}

/// Whether two files hold the same points and cells, whatever their arrays.
pub(super) fn assert_same_mesh(first: &Path, second: &Path) {
    let grid = |path: &Path| match Input::open(path.to_str().unwrap(), None).unwrap() {
        Input::Sites(sites) => sites.grid(),
        _ => panic!("{} is no mesh", path.display()),
    };
    let (first, second) = (grid(first), grid(second));
    let (mut first, mut second) = (first.borrow_mut(), second.borrow_mut());
    assert_eq!((first.points(), first.cells()), (second.points(), second.cells()));
    let (points, cells) = (first.points(), first.cells());
    // Text may have more digits than its numbers hold.
    let narrow = |points: Vec<[f64; 3]>| points.into_flattened().into_iter().map(|x| x as f32).collect::<Vec<_>>();
    assert!(narrow(first.read_points(0..points).unwrap()) == narrow(second.read_points(0..points).unwrap()));
    assert!(first.read_cells(0..cells).unwrap() == second.read_cells(0..cells).unwrap());
}

/// Names of the arrays of a mesh.
pub(super) fn arrays(path: &Path, at: Location) -> Vec<String> {
    match Input::open(path.to_str().unwrap(), None).unwrap() {
        Input::Sites(sites) => sites.grid().borrow().arrays(at).into_iter().map(|(name, _)| name).collect(),
        _ => panic!("{} is no mesh", path.display()),
    }
}

#[test]
fn a_car_comes_back_with_fields_errors_and_forces() {
    for (lists, style, compress) in [(true, PACKED, "zlib"), (false, PLAIN, "lz4")] {
        let workplace = Workplace::new();
        std::fs::write(workplace.path("boundary.vtp"), boundary(style)).unwrap();
        std::fs::write(workplace.path("volume.vtu"), volume(style, lists)).unwrap();
        std::fs::write(workplace.path("body.stl"), body()).unwrap();
        let line = "predict --weights DATA/ellipsoid.safetensors --config DATA/ellipsoid.json --condition alpha=10 \
                    --condition beta=5 --geometry {}/body.stl --surface {}/boundary.vtp --volume {}/volume.vtu \
                    --truth surface=pMeanTrim:pressure --truth volume=pMean:pressure,UMean:velocity \
                    --reference-area 1.5 --density 2 --slice-points 20 --keep-arrays --chunk 500 --out {}/out";
        let folder = workplace.folder.path().display().to_string();
        let words = line.split_whitespace().map(|word| word.replace("DATA", DATA).replace("{}", &folder));
        let line = words.chain(["--compress".to_string(), compress.to_string()]);
        let line: Vec<_> =
            if lists { line.chain(["--patches", "patch"].map(str::to_string)).collect() } else { line.collect() };
        run(&line).unwrap();

        let (surface, volume) = (workplace.path("out/surface.vtp"), workplace.path("out/volume.vtu"));
        assert_same_mesh(&workplace.path("boundary.vtp"), &surface);
        assert_same_mesh(&workplace.path("volume.vtu"), &volume);
        let mut expected = vec!["pressure", "pressure_error", "pMeanTrim", "patch"];
        // Solids are those of the body, unless patches are asked for.
        expected.extend((!lists).then_some("solid"));
        assert_eq!(arrays(&surface, Location::Cells), expected);
        assert_eq!(arrays(&surface, Location::Points), ["id"]);
        let expected = ["velocity", "pressure", "velocity_error", "pressure_error", "UMean", "pMean"];
        assert_eq!(arrays(&volume, Location::Cells), expected);

        let files = workplace.files("out");
        let text = String::from_utf8_lossy(&files["volume.vtu"]);
        assert!(text.contains(if compress == "zlib" { "vtkZLibDataCompressor" } else { "vtkLZ4DataCompressor" }));
        let metrics: Metrics = serde_json::from_slice(&files["metrics.json"]).unwrap();
        for (field, most) in [("surface_pressure", 0.02), ("volume_pressure", 0.04), ("volume_velocity", 0.01)] {
            let error = metrics[field];
            assert!(error.relative_l2 > 1e-4 && error.relative_l2 < most, "{field}: {error:?}");
            // Equal volumes weigh alike.
            let weighted = error.weighted_relative_l2.unwrap();
            let same = (weighted / error.relative_l2 - 1.0).abs() < 1e-6;
            assert_eq!(same, field.starts_with("volume"), "{field}: {error:?}");
        }
        let forces: Value = serde_json::from_slice(&files["forces.json"]).unwrap();
        let force = |which: &str, part: &str, axis: usize| {
            let told = if part.is_empty() { &forces[which] } else { &forces[which]["solids"][part] };
            told["force"][axis].as_f64().unwrap()
        };
        let [front, rear] = if lists { ["patch 4", "patch 17"] } else { ["front", "rear"] };
        for axis in 0..3 {
            // Cells hold the pressure at their middle, so that the sum is only nearly zero.
            assert!(force("true", "", axis).abs() < 0.02 && force("predicted", "", axis).abs() < 0.02, "{forces}");
            let parts = force("true", front, axis) + force("true", rear, axis);
            assert!((parts - force("true", "", axis)).abs() < 1e-9);
        }
        let (front, predicted) = (force("true", front, 0), force("predicted", front, 0));
        assert!(front.abs() > 0.1 && (predicted / front - 1.0).abs() < 0.05, "{predicted} for {front}");
    }
}
