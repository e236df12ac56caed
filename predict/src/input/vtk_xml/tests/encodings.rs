//! The same mesh, however its numbers are written.

use super::open_bytes;
use super::writer::{MODES, Mode, PLAIN, Style, Values, Writer};
use crate::input::grid::{Grid, Location};
use crate::input::vtk_xml::header::Codec;

/// Two tetrahedra with a face in common and one apart.
pub(super) fn tetrahedra(style: Style) -> Vec<u8> {
    let points = points().into_iter().flatten().map(|x| x as f32).collect();
    Writer::new(style, "UnstructuredGrid")
        .tag(r#"<Piece NumberOfPoints="9" NumberOfCells="3"><PointData>"#)
        .array("speed", 1, &Values::F64(speeds()))
        .tag(r#"<DataArray type="String" Name="words" format="ascii">65 0</DataArray></PointData><CellData>"#)
        .array("region", 1, &Values::I32(vec![7, -8, 9]))
        .array("a &lt; b", 2, &Values::F32(vec![0.5, 1.5, 2.5, 3.5, 4.5, 5.5]))
        .tag("</CellData><Points>")
        .array("Points", 3, &Values::F32(points))
        .tag("</Points><Cells>")
        .array("connectivity", 1, &Values::I64(CORNERS.map(|corner| corner as i64).to_vec()))
        .array("offsets", 1, &Values::I64(vec![4, 8, 12]))
        .array("types", 1, &Values::U8(vec![10; 3]))
        .tag("</Cells></Piece>")
        .finish("UnstructuredGrid")
}

const CORNERS: [u64; 12] = [0, 1, 2, 3, 1, 2, 3, 4, 5, 6, 7, 8];

fn points() -> Vec<[f64; 3]> {
    let plain = [[0., 0., 0.], [1., 0., 0.], [0., 1., 0.], [0., 0., 1.], [1., 1., 1.]];
    let apart = [[9., 0., 0.], [11., 0., 0.], [9., 3., 0.], [9., 0., 4.]];
    plain.into_iter().chain(apart).collect()
}

fn speeds() -> Vec<f64> {
    (0..9).map(|at| f64::from(at) * 0.25 - 1.0).collect()
}

fn check(grid: &mut Grid, what: &str) {
    assert_eq!((grid.points(), grid.cells()), (9, 3), "{what}");
    assert_eq!(grid.arrays(Location::Points), [("speed".to_string(), 1)], "{what}");
    assert_eq!(grid.arrays(Location::Cells), [("region".to_string(), 1), ("a < b".to_string(), 2)], "{what}");
    // Forwards, backwards, and across blocks.
    for range in [0..9, 8..9, 3..8, 0..1, 4..4] {
        let (from, to) = (range.start as usize, range.end as usize);
        assert_eq!(grid.read_points(range.clone()).unwrap(), points()[from..to], "{what}");
        assert_eq!(grid.read_array(Location::Points, "speed", range).unwrap(), speeds()[from..to], "{what}");
    }
    assert_eq!(grid.read_array(Location::Cells, "region", 1..3).unwrap(), [-8.0, 9.0], "{what}");
    assert_eq!(grid.read_array(Location::Cells, "a < b", 1..2).unwrap(), [2.5, 3.5], "{what}");
    for range in [1..3, 0..3, 2..3] {
        let cells = grid.read_cells(range.clone()).unwrap();
        assert_eq!(cells.corners, CORNERS[range.start as usize * 4..], "{what}");
        assert_eq!(cells.kinds, vec![10; cells.len()], "{what}");
    }
    assert_eq!(grid.centres(2..3).unwrap(), [[9.5, 0.75, 1.0]], "{what}");
    let sizes = grid.sizes(0..3).unwrap();
    for (size, expected) in sizes.into_iter().zip([1. / 6., 1. / 3., 4.0]) {
        assert!((size - expected).abs() < 1e-6, "{what}: volume {size}, expected {expected}");
    }
}

#[test]
fn every_encoding_gives_the_same_mesh() {
    for mode in MODES {
        for codec in [None, Some(Codec::Zlib), Some(Codec::Lz4), Some(Codec::Lzma)] {
            for word in [4, 8] {
                for big_endian in [false, true] {
                    // Blocks of odd sizes; some arrays are exactly a few of them.
                    for block in [7, 24, 4096] {
                        let style = Style { mode, codec, word, big_endian, block, line: None };
                        let mut grid = open_bytes("volume.vtu", &tetrahedra(style)).unwrap();
                        check(&mut grid, &format!("{style:?}"));
                    }
                }
            }
        }
    }
}

#[test]
fn base64_may_have_lines() {
    for codec in [None, Some(Codec::Zlib)] {
        for word in [4, 8] {
            for line in [1, 4, 19] {
                let style = Style { mode: Mode::Inline, codec, word, line: Some(line), block: 24, ..PLAIN };
                check(&mut open_bytes("volume.vtu", &tetrahedra(style)).unwrap(), &format!("{style:?}"));
            }
        }
    }
}

#[test]
fn the_length_may_be_encoded_by_itself() {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    for (header, word) in [("UInt32", 4), ("UInt64", 8)] {
        let numbers: Vec<u8> = [1.5f32, 2.5, -3.5].into_iter().flat_map(f32::to_le_bytes).collect();
        let length = &12u64.to_le_bytes()[..word];
        let text = STANDARD.encode(length) + &STANDARD.encode(&numbers);
        let file = format!(
            r#"<VTKFile type="PolyData" byte_order="LittleEndian" header_type="{header}"><PolyData>
            <Piece NumberOfPoints="1"><Points><DataArray type="Float32" NumberOfComponents="3" format="binary">{text}
            </DataArray></Points></Piece></PolyData></VTKFile>"#
        );
        let mut grid = open_bytes("point.vtp", file.as_bytes()).unwrap();
        assert_eq!(grid.read_points(0..1).unwrap(), [[1.5, 2.5, -3.5]]);
    }
}

#[test]
fn long_texts_are_read_in_windows() {
    let count = 200_000u64;
    let value = |at: u64| (at as f64 * 0.37).sin() * 1e5;
    let values: Vec<f64> = (0..3 * count).map(value).collect();
    let file = Writer::new(PLAIN, "PolyData")
        .tag(&format!(r#"<Piece NumberOfPoints="{count}"><Points>"#))
        .array("Points", 3, &Values::F64(values))
        .tag("</Points></Piece>")
        .finish("PolyData");
    let mut grid = open_bytes("points.vtp", &file).unwrap();
    for start in [0, 150_000, 3, 199_990, 60_000, 60_010, 0] {
        let points = grid.read_points(start..start + 10).unwrap();
        let expected: Vec<f64> = (3 * start..3 * start + 30).map(value).collect();
        assert_eq!(points.as_flattened(), expected, "{start}");
    }
}
