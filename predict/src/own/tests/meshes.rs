//! Meshes that come in and go out again.

use super::car::{arrays, assert_same_mesh};
use super::*;
use crate::input::writer::{MODES, Style, Values, Writer};
use crate::input::{Input, Location};

/// Of cells of all dimensions, in two pieces with arrays at both: points, a line, a strip and faces, or volumes.
pub(super) fn mixed(style: Style, kind: &str) -> Vec<u8> {
    let mut writer = Writer::new(style, kind);
    for piece in 0..2 {
        let x = f64::from(piece);
        let points: Vec<f64> = [[0., 0., 0.], [1., 0., 0.], [1., 1., 0.], [0., 1., 0.], [0., 0., 1.], [1., 0., 1.]]
            .iter()
            .flat_map(|[u, v, w]: &[f64; 3]| [u + x, v + 0.1 * x, *w])
            .collect();
        let counts = match kind {
            "PolyData" => r#"NumberOfVerts="2" NumberOfLines="1" NumberOfStrips="1" NumberOfPolys="2""#,
            _ => r#"NumberOfCells="6""#,
        };
        writer
            .tag(&format!(r#"<Piece NumberOfPoints="6" {counts}><PointData>"#))
            .array("id", 1, &Values::I32((0..6).map(|id| id + 6 * piece).collect()))
            .tag("</PointData><CellData>")
            .array("p", 1, &Values::F32((0..6).map(|at| at as f32 + 0.5).collect()))
            .array("code", 2, &Values::U8((0..12).collect()))
            .tag("</CellData><Points>")
            .array("Points", 3, &Values::F64(points))
            .tag("</Points>");
        let mut section = |name: &str, corners: &[i64], ends: &[i64], kinds: Option<&[u8]>| {
            writer.tag(&format!("<{name}>")).array("connectivity", 1, &Values::I64(corners.to_vec())).array(
                "offsets",
                1,
                &Values::I64(ends.to_vec()),
            );
            if let Some(kinds) = kinds {
                writer.array("types", 1, &Values::U8(kinds.to_vec()));
            }
            writer.tag(&format!("</{name}>"));
        };
        if kind == "PolyData" {
            section("Verts", &[0, 1, 2], &[1, 3], None);
            section("Lines", &[0, 4, 5], &[3], None);
            section("Strips", &[0, 1, 3, 2], &[4], None);
            section("Polys", &[0, 1, 4, 0, 1, 2, 3], &[3, 7], None);
        } else {
            let corners = [0, 0, 1, 0, 1, 2, 0, 1, 2, 3, 0, 1, 3, 4, 0, 1, 3, 4, 5, 2];
            section("Cells", &corners, &[1, 3, 6, 10, 14, 20], Some(&[1, 3, 5, 9, 10, 13]));
        }
        writer.tag("</Piece>");
    }
    writer.finish(kind)
}

#[test]
fn every_mesh_goes_out_as_it_came() {
    let workplace = Workplace::new();
    let mut at = 0;
    for (kind, file) in [("PolyData", "mesh.vtp"), ("UnstructuredGrid", "mesh.vtu")] {
        for mode in MODES {
            let style = Style { mode, big_endian: at % 2 == 1, ..crate::input::writer::PLAIN };
            at += 1;
            std::fs::write(workplace.path(file), mixed(style, kind)).unwrap();
            let [input, out] = [file, "out"].map(|name| workplace.path(name));
            for (place, codec) in [("cells", &["--compress", "lz4"][..]), ("points", &[])] {
                let volume = format!("{{}}/{file}");
                let options = ["--volume", &volume, "--at", place, "--keep-arrays", "--overwrite"];
                workplace.run(&[&options, codec].concat()).unwrap();
                let written = out.join(file.replace("mesh", "volume"));
                assert_same_mesh(&input, &written);
                let (cells, points) = (arrays(&written, Location::Cells), arrays(&written, Location::Points));
                match place {
                    "cells" => {
                        assert_eq!(cells, ["u", "p", "p_original", "code"], "{mode:?}");
                        assert_eq!(points, ["id"]);
                    }
                    _ => {
                        assert_eq!(points, ["u", "p", "id"], "{mode:?}");
                        assert_eq!(cells, ["p_original", "code"], "{mode:?}");
                    }
                }
                let Input::Sites(sites) = Input::open(written.to_str().unwrap(), None).unwrap() else { panic!() };
                let grid = sites.grid();
                let mut grid = grid.borrow_mut();
                let ids: Vec<f64> = (0..12).map(f64::from).collect();
                assert_eq!(grid.read_array(Location::Points, "id", 0..12).unwrap(), ids);
                let at = if place == "cells" { Location::Cells } else { Location::Points };
                let values: Vec<f32> = grid.read_array(at, "u", 0..12).unwrap().into_iter().map(|x| x as f32).collect();
                assert_eq!(values, numbers(&workplace.tensors("volume.safetensors")["u"]), "{mode:?}");
            }
        }
    }
}

#[test]
fn a_compressed_run_goes_on_where_it_was_and_leaves_nothing_behind() {
    let workplace = Workplace::new();
    std::fs::write(workplace.path("mesh.vtu"), mixed(crate::input::writer::PLAIN, "UnstructuredGrid")).unwrap();
    let options = ["--volume", "{}/mesh.vtu", "--compress", "zlib"];
    workplace.run(&options).unwrap();
    let whole = workplace.files("out");
    assert!(whole.keys().all(|name| !name.ends_with(".partial")), "{:?}", whole.keys());
    workplace.run(&[&options[..], &["--resume"]].concat()).unwrap();
    assert_eq!(workplace.files("out"), whole);
    let error = format!("{:#}", workplace.run(&["--volume", "{}/mesh.vtu", "--resume"]).unwrap_err());
    assert!(error.contains("--resume: compress was \"zlib\" when the run began"), "{error}");
    // Killed while a file was being packed: the raw one is still there, and a half of the packed one.
    let state = |stage: &str| {
        let path = workplace.path("out/run.json");
        let text = std::fs::read_to_string(&path).unwrap().replace("\"stage\": \"complete\"", stage);
        std::fs::write(&path, text).unwrap();
    };
    workplace.run(&["--volume", "{}/mesh.vtu", "--out", "{}/raw"]).unwrap();
    for name in ["volume.vtu", "surface.vtp", "wake.vtp"] {
        let raw = workplace.path("raw").join(name);
        std::fs::rename(raw, workplace.path("out").join(format!("{name}.partial"))).unwrap();
    }
    std::fs::remove_file(workplace.path("out/volume.vtu")).unwrap();
    std::fs::write(workplace.path("out/volume.vtu.packed.partial"), "half").unwrap();
    state("\"stage\": \"renaming\"");
    workplace.run(&[&options[..], &["--resume"]].concat()).unwrap();
    let resumed = workplace.files("out");
    assert_eq!(resumed.keys().collect::<Vec<_>>(), whole.keys().collect::<Vec<_>>());
    for (name, bytes) in resumed {
        assert!(bytes == whole[&name], "{name} differs");
    }
}

#[test]
fn the_faces_of_an_stl_are_predicted_with_their_solids() {
    let workplace = Workplace::new();
    let mesh = surface_mesh([1.1, 0.6, 0.8], 7, 12);
    let mut text = String::new();
    for (name, front) in [("front", true), ("rear", false)] {
        text += &format!("solid {name}\n");
        for corners in mesh.triangles() {
            let points = corners.map(|corner| mesh.points()[corner as usize]);
            if (points[0][0] < 0.0) == front {
                let vertices = points.map(|[x, y, z]| format!("vertex {x} {y} {z}\n")).concat();
                text += &format!("facet normal 0 0 0\nouter loop\n{vertices}endloop\nendfacet\n");
            }
        }
        text += &format!("endsolid {name}\n");
    }
    std::fs::write(workplace.path("body.stl"), text).unwrap();
    for place in ["points", "cells"] {
        workplace.run(&["--at", place, "--overwrite"]).unwrap();
        let expected = if place == "cells" { mesh.triangles().count() } else { mesh.points().len() };
        assert_eq!(workplace.tensors("surface.safetensors")["p"].dims(), [expected, 1]);
        let files = workplace.files("out");
        let written = String::from_utf8_lossy(&files["surface.vtp"]);
        assert!(written.contains(r#"Name="solid names""#), "{place}");
        let cells = arrays(&workplace.path("out/surface.vtp"), Location::Cells);
        assert_eq!(cells.last().unwrap(), "solid", "{place}");
        let forces: Value = serde_json::from_slice(&files["forces.json"]).unwrap();
        let solids: Vec<_> = forces["predicted"]["solids"].as_object().unwrap().keys().collect();
        assert_eq!(solids, ["front", "rear"], "{place}");
    }
}
