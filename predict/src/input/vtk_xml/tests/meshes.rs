//! Kinds of meshes: cells in their sections, polyhedra, several pieces and files.

use super::super::open;
use super::open_bytes;
use super::writer::{Codec, Mode, PLAIN, Style, Values, Writer};
use crate::input::grid::{Cells, Location};

/// A unit cube with its corners in the order of a hexahedron, at a place along x.
fn cube(x: f32) -> Vec<f32> {
    let corners = [
        [0., 0., 0.],
        [1., 0., 0.],
        [1., 1., 0.],
        [0., 1., 0.],
        [0., 0., 1.],
        [1., 0., 1.],
        [1., 1., 1.],
        [0., 1., 1.],
    ];
    corners.into_iter().flat_map(|[u, v, w]| [u + x, v, w]).collect()
}

const FACES: [[i64; 4]; 6] = [[0, 3, 2, 1], [4, 5, 6, 7], [0, 1, 5, 4], [1, 2, 6, 5], [2, 3, 7, 6], [3, 0, 4, 7]];

/// A hexahedron, a polyhedron, a tetrahedron and another polyhedron.
fn polyhedra(lists: bool, style: Style) -> Vec<u8> {
    let mut writer = Writer::new(style, "UnstructuredGrid");
    writer
        .tag(r#"<Piece NumberOfPoints="16" NumberOfCells="4"><Points>"#)
        .array("Points", 3, &Values::F32([cube(0.0), cube(2.0)].concat()))
        .tag("</Points><Cells>")
        .array("connectivity", 1, &Values::I64((0..16).chain([0, 1, 3, 4]).chain(0..8).collect()))
        .array("offsets", 1, &Values::I64(vec![8, 16, 20, 28]))
        .array("types", 1, &Values::U8(vec![12, 42, 10, 42]));
    let faces = |first: i64| FACES.into_iter().map(move |face| face.map(|corner| corner + first).to_vec());
    if lists {
        writer
            .array("face_connectivity", 1, &Values::I64(faces(8).chain(faces(0)).flatten().collect()))
            .array("face_offsets", 1, &Values::I64((1..=12).map(|face| 4 * face).collect()))
            .array("polyhedron_to_faces", 1, &Values::I64((0..12).collect()))
            .array("polyhedron_offsets", 1, &Values::I64(vec![0, 6, 6, 12]));
    } else {
        let stream = |first| std::iter::once(6).chain(faces(first).flat_map(|face| [vec![4], face].concat()));
        writer.array("faces", 1, &Values::I64(stream(8).chain(stream(0)).collect())).array(
            "faceoffsets",
            1,
            &Values::I64(vec![-1, 31, -1, 62]),
        );
    }
    writer.tag("</Cells></Piece>").finish("UnstructuredGrid")
}

#[test]
fn polyhedra_are_read_in_both_spellings() {
    for lists in [false, true] {
        let mut grid = open_bytes("volume.vtu", &polyhedra(lists, PLAIN)).unwrap();
        let centres = grid.centres(0..4).unwrap();
        let expected = [[0.5, 0.5, 0.5], [2.5, 0.5, 0.5], [0.25, 0.25, 0.25], [0.5, 0.5, 0.5]];
        for (cell, (centre, expected)) in centres.iter().zip(expected).enumerate() {
            assert!(centre.iter().zip(expected).all(|(x, y)| (x - y).abs() < 1e-12), "{lists} {cell}: {centre:?}");
        }
        let sizes = grid.sizes(0..4).unwrap();
        assert!(sizes.iter().zip([1., 1., 1. / 6., 1.]).all(|(x, y)| (x - y).abs() < 1e-12), "{sizes:?}");
        // A range that begins behind other polyhedra.
        let Cells { kinds, face_corners, face_ends, cell_faces, .. } = grid.read_cells(2..4).unwrap();
        assert_eq!((kinds, cell_faces), (vec![10, 42], vec![0, 6]));
        assert_eq!(face_corners, FACES.as_flattened().iter().map(|&corner| corner as u64).collect::<Vec<_>>());
        assert_eq!(face_ends, [4, 8, 12, 16, 20, 24]);
        assert_eq!(grid.dimension().unwrap(), 3);
    }
}

#[test]
fn polyhedra_without_faces_are_refused() {
    let whole = String::from_utf8(polyhedra(true, PLAIN)).unwrap();
    let mut grid = open_bytes("volume.vtu", whole.replace("polyhedron_offsets", "other").as_bytes()).unwrap();
    let message = format!("{:#}", grid.centres(0..4).unwrap_err());
    assert!(message.contains("there are polyhedra (type 42), but no arrays of their faces"), "{message}");
}

fn poly_data(values: &[i32]) -> String {
    let mut writer = Writer::new(PLAIN, "PolyData");
    writer.tag(
        r#"<Piece NumberOfPoints="8" NumberOfVerts="2" NumberOfLines="2" NumberOfStrips="1" NumberOfPolys="3"><CellData>"#,
    );
    writer.array("id", 1, &Values::I32(values.to_vec())).tag("</CellData><Points>");
    let points = (0..8).flat_map(|at| [at as f32, (at % 2) as f32, 0.0]).collect();
    writer.array("Points", 3, &Values::F32(points)).tag("</Points>");
    let sections: [(&str, &[i64], &[i64]); 4] = [
        ("Verts", &[0, 1, 2], &[1, 3]),
        ("Lines", &[0, 1, 0, 1, 2], &[2, 5]),
        ("Strips", &[0, 1, 2, 3, 4], &[5]),
        ("Polys", &[0, 1, 2, 3, 4, 5, 6, 0, 2, 4, 5, 1], &[3, 7, 12]),
    ];
    for (name, connectivity, offsets) in sections {
        writer
            .tag(&format!("<{name}>"))
            .array("connectivity", 1, &Values::I64(connectivity.to_vec()))
            .array("offsets", 1, &Values::I64(offsets.to_vec()))
            .tag(&format!("</{name}>"));
    }
    String::from_utf8(writer.tag("</Piece>").finish("PolyData")).unwrap()
}

#[test]
fn poly_data_have_verts_lines_polys_strips_in_this_order() {
    let mut grid = open_bytes("surface.vtp", poly_data(&[0, 1, 2, 3, 4, 5, 6, 7]).as_bytes()).unwrap();
    let cells = grid.read_cells(0..8).unwrap();
    assert_eq!(cells.kinds, [1, 2, 3, 4, 5, 9, 7, 6]);
    assert_eq!(cells.corners_of(5), [3, 4, 5, 6]);
    assert_eq!(cells.corners_of(7), [0, 1, 2, 3, 4]);
    assert_eq!(grid.read_cells(3..6).unwrap().corners, [0, 1, 2, 0, 1, 2, 3, 4, 5, 6]);
    let surface = grid.surface().unwrap();
    let faces: Vec<_> = surface.mesh.faces().collect();
    assert_eq!(surface.cells, [4, 5, 6, 7, 7, 7]);
    // The triangles of a strip all face the same way.
    assert_eq!(faces[3..], [[0, 1, 2], [2, 1, 3], [2, 3, 4]]);
    let sizes = grid.sizes(0..8).unwrap();
    assert_eq!(sizes[..3], [0.0, 0.0, 2f64.sqrt()]);
    assert_eq!(sizes[7], 3.0);
    assert_eq!(grid.dimension().unwrap(), 2);
}

#[test]
fn pieces_and_files_of_a_list_are_one_mesh() {
    let folder = tempfile::tempdir().unwrap();
    let file = poly_data(&[0, 1, 2, 3, 4, 5, 6, 7]);
    let piece = file.split_once("<Piece").unwrap().1.split_once("</Piece>").unwrap().0;
    let empty = r#"<Piece NumberOfPoints="0" NumberOfVerts="0"/>"#;
    let twice = file.replacen("</Piece>", &format!("</Piece>{empty}<Piece{piece}</Piece>"), 1);
    std::fs::write(folder.path().join("one.vtp"), &file).unwrap();
    std::fs::write(folder.path().join("two.vtp"), &twice).unwrap();
    let list = r#"<VTKFile type="PPolyData"><PPolyData GhostLevel="0"><PPoints/><Piece Source="two.vtp"/>
        <Piece Source="one.vtp"/></PPolyData></VTKFile>"#;
    std::fs::write(folder.path().join("all.pvtp"), list).unwrap();
    let mut grid = open(&folder.path().join("all.pvtp")).unwrap();
    assert_eq!((grid.points(), grid.cells()), (24, 24));
    let ids = grid.read_array(Location::Cells, "id", 0..24).unwrap();
    assert_eq!(ids, (0..24).map(|at| f64::from(at % 8)).collect::<Vec<_>>());
    assert_eq!(grid.read_cells(12..14).unwrap().corners, [8, 9, 10, 11, 12, 13, 14]);
    assert_eq!(grid.read_points(7..9).unwrap(), [[7.0, 1.0, 0.0], [0.0, 0.0, 0.0]]);
    assert_eq!(grid.surface().unwrap().cells.len(), 18);
    assert_eq!(grid.centres(4..5).unwrap(), grid.centres(20..21).unwrap());
    let missing = list.replace("one.vtp", "none.vtp");
    std::fs::write(folder.path().join("bad.pvtp"), missing).unwrap();
    let message = format!("{:#}", open(&folder.path().join("bad.pvtp")).err().unwrap());
    assert!(message.contains("none.vtp: cannot open"), "{message}");
}

#[test]
fn appended_data_behave_as_text_does() {
    for lists in [false, true] {
        for mode in [Mode::AppendedRaw, Mode::AppendedBase64, Mode::Inline] {
            let mut text = open_bytes("volume.vtu", &polyhedra(lists, PLAIN)).unwrap();
            let mut binary = open_bytes("volume.vtu", &polyhedra(lists, Style { mode, ..PLAIN })).unwrap();
            assert_eq!(binary.read_cells(0..4).unwrap(), text.read_cells(0..4).unwrap());
        }
    }
}

/// A block of so many hexahedra along each side, compressed as pyvista does.
fn block(side: usize) -> Vec<u8> {
    let across = side + 1;
    let style = Style { mode: Mode::AppendedRaw, codec: Some(Codec::Lz4), word: 4, block: 1 << 15, ..PLAIN };
    let place = |at: usize| [at % across, at / across % across, at / across / across].map(|i| i as f32);
    let corner = |cell: usize, corner: usize| {
        let [x, y, z] = [cell % side, cell / side % side, cell / side / side];
        let [u, v, w] = [(corner ^ corner >> 1) & 1, corner >> 1 & 1, corner >> 2];
        (((z + w) * across + y + v) * across + x + u) as i64
    };
    let cells = side.pow(3);
    Writer::new(style, "UnstructuredGrid")
        .tag(&format!(r#"<Piece NumberOfPoints="{}" NumberOfCells="{cells}"><CellData>"#, across.pow(3)))
        .array("p", 1, &Values::F32((0..cells).map(|cell| cell as f32).collect()))
        .tag("</CellData><Points>")
        .array("Points", 3, &Values::F32((0..across.pow(3)).flat_map(place).collect()))
        .tag("</Points><Cells>")
        .array("connectivity", 1, &Values::I64((0..8 * cells).map(|at| corner(at / 8, at % 8)).collect()))
        .array("offsets", 1, &Values::I64((1..=cells as i64).map(|cell| 8 * cell).collect()))
        .array("types", 1, &Values::U8(vec![12; cells]))
        .tag("</Cells></Piece>")
        .finish("UnstructuredGrid")
}

#[test]
fn what_reading_takes_does_not_grow_with_the_mesh() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("block.vtu");
    let mut taken = Vec::new();
    for side in [20, 100] {
        std::fs::write(&path, block(side)).unwrap();
        let (cells, points) = (side.pow(3) as u64, (side as u64 + 1).pow(3));
        let most = crate::counting::most_bytes(|| {
            let mut grid = open(&path).unwrap();
            for start in (0..cells).step_by(10_000) {
                let range = start..cells.min(start + 10_000);
                let centre =
                    |cell: u64| [cell % side as u64, cell / side as u64 % side as u64, cell / (side * side) as u64];
                let (found, values) = (
                    grid.centres(range.clone()).unwrap(),
                    grid.read_array(Location::Cells, "p", range.clone()).unwrap(),
                );
                for ((cell, found), value) in range.zip(found).zip(values) {
                    assert_eq!((found, value), (centre(cell).map(|x| x as f64 + 0.5), cell as f64));
                }
            }
        });
        // Points are kept for cells to come: 12 bytes each, 48 MiB at most.
        let kept = usize::try_from(12 * points).unwrap().min(48 << 20);
        taken.push(most.saturating_sub(kept));
    }
    // Beside them only the sizes of compressed blocks grow.
    assert!(taken[1] < taken[0] + (1 << 20), "{taken:?} bytes");
}
