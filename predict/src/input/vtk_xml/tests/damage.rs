//! Files that are cut off, changed or wrong are errors, whatever was done to them.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::encodings::tetrahedra;
use super::open_bytes;
use super::writer::{MODES, Mode, PLAIN, Style};
use crate::input::grid::Location;
use crate::input::vtk_xml::header::Codec;

/// Reads all of a file.
fn read_all(bytes: &[u8]) -> anyhow::Result<()> {
    let mut grid = open_bytes("volume.vtu", bytes)?;
    let (points, cells) = (grid.points().min(1000), grid.cells().min(1000));
    grid.read_points(0..points)?;
    grid.read_cells(0..cells)?;
    grid.centres(0..cells)?;
    grid.sizes(0..cells)?;
    for at in [Location::Points, Location::Cells] {
        for (name, _) in grid.arrays(at) {
            grid.read_array(at, &name, 0..grid.rows(at).min(1000))?;
        }
    }
    Ok(())
}

fn styles() -> impl Iterator<Item = Style> {
    let codecs = [None, Some(Codec::Zlib), Some(Codec::Lz4), Some(Codec::Lzma)];
    MODES.into_iter().flat_map(move |mode| codecs.map(|codec| Style { mode, codec, word: 8, block: 40, ..PLAIN }))
}

#[test]
fn a_file_that_is_cut_off_is_refused() {
    for style in styles() {
        let whole = tetrahedra(style);
        read_all(&whole).unwrap();
        // Behind appended data nothing matters but that they are there.
        let needed = whole.len() - "\n  </AppendedData>\n</VTKFile>\n".len();
        for length in (0..needed).step_by(13) {
            assert!(read_all(&whole[..length]).is_err(), "{style:?} cut at {length}");
        }
    }
}

#[test]
fn a_file_with_changed_bytes_never_panics() {
    let mut random = StdRng::seed_from_u64(11);
    for style in styles() {
        let whole = tetrahedra(style);
        for _ in 0..40 {
            let mut bytes = whole.clone();
            for _ in 0..random.random_range(1..4) {
                let at = random.random_range(0..bytes.len());
                bytes[at] =
                    if random.random() { random.random() } else { b"0123456789<>\"= \n"[random.random_range(0..16)] };
            }
            // Some changes do no harm.
            let _ = read_all(&bytes);
        }
    }
}

#[test]
fn what_is_wrong_is_named() {
    let text = String::from_utf8(tetrahedra(PLAIN)).unwrap();
    let raw = |from: &str, to: &str| {
        let bytes = tetrahedra(Style { mode: Mode::AppendedRaw, ..PLAIN });
        let at = bytes.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
        [&bytes[..at], to.as_bytes(), &bytes[at + from.len()..]].concat()
    };
    let ascii = |from: &str, to: &str| {
        assert!(text.contains(from), "{from}");
        text.replacen(from, to, 1).into_bytes()
    };
    let cases = [
        (ascii("UnstructuredGrid", "ImageData"), "it must hold PolyData or an UnstructuredGrid, got 'ImageData'"),
        (ascii("VTKFile", "HTML"), "XML"),
        (ascii("LittleEndian", "MiddleEndian"), "byte_order must be LittleEndian or BigEndian, got 'MiddleEndian'"),
        (ascii("UInt32", "UInt16"), "header_type must be UInt32 or UInt64, got 'UInt16'"),
        (ascii("UInt32\"", "UInt32\" compressor=\"zip\""), "compressor must be that of zlib, lz4 or lzma, got 'zip'"),
        (
            ascii("NumberOfPoints=\"9\"", "NumberOfPoints=\"-9\""),
            "NumberOfPoints of <Piece> must be a whole number, got '-9'",
        ),
        (ascii("NumberOfPoints=\"9\"", "NumberOfPoints=\"10\""), "Points: ends early: expected 30 numbers, got 27"),
        (
            ascii("NumberOfPoints=\"9\"", "NumberOfPoints=\"9999999999999999999\""),
            "its points are more than a file can hold",
        ),
        (ascii("NumberOfPoints=\"9\"", ""), "<Piece> has no NumberOfPoints"),
        (
            ascii("Name=\"Points\" NumberOfComponents=\"3\"", "Name=\"Points\" NumberOfComponents=\"2\""),
            "points must have 3 components, got 2",
        ),
        (ascii("Name=\"offsets\"", "Name=\"ends\""), "<Cells> has no array 'offsets'"),
        (ascii("4 8 12", "4 3 12"), "Cells/offsets: element 1 ends at 3, before it begins at 4"),
        (ascii("4 8 12", "4 7 12"), "cell 1 of type 10 must have 4 points, got 3"),
        (ascii("4 8 12", "4 8 13"), "Cells/connectivity: ends early: expected 13 numbers, got 12"),
        (ascii("4 8 12", "4 8 13e4"), "Cells/offsets: number 2: expected i64, got '13e4'"),
        (ascii("4 8 12", "4 8"), "Cells/offsets: ends early: expected 3 numbers, got 2"),
        (ascii("4 8 12", "4 8 9223372036854775807"), "at most"),
        (ascii("5 6 7 8", "5 6 7 9"), "Cells/connectivity: there is no point 9; the piece has 9"),
        (ascii("5 6 7 8", "5 6 7 -1"), "there is no point -1"),
        (ascii("10 10 10", "10 10 68"), "cells of type 68 have no size or centre"),
        (ascii("10 10 10", "10 10 300"), "cell 2 has type 300"),
        (ascii("Name=\"types\"", "Name=\"kinds\""), "no array 'types'"),
        (ascii("type=\"UInt8\"", "type=\"Half\""), "its type must be one of numbers, got 'Half'"),
        (ascii("type=\"UInt8\"", "type=\"Float32\""), "Cells/types: the numbers must be integers, got Float32"),
        (ascii("format=\"ascii\"", "format=\"binary\""), "speed"),
        (ascii("format=\"ascii\"", "format=\"zip\""), "its format must be ascii, binary or appended, got 'zip'"),
        (ascii("format=\"ascii\"", "format=\"appended\" offset=\"0\""), "there is no <AppendedData>"),
        (raw("offset=\"0\"", "offset=\"99999999999999999999\""), "offset of <DataArray> must be a whole number"),
        (raw("offset=\"0\"", "offset=\"18446744073709551615\""), "its offset is beyond any file"),
        (raw("offset=\"0\"", "offset=\"123456\""), "truncated: it begins at byte"),
        (raw("offset=\"0\"", "offset=\"1\""), "speed"),
        (raw("NumberOfPoints=\"9\"", "NumberOfPoints=\"8\""), "must hold 24 numbers, got 27"),
        (raw("\"raw\"", "\"hex\""), "must be raw or base64, got 'hex'"),
        (raw("   _", "   x"), "must begin with '_'"),
        (b"<VTKFile type=\"UnstructuredGrid\"><UnstructuredGrid/></VTKFile>".to_vec(), "it has no <Piece>"),
        (b"version https://git-lfs.github.com/spec/v1\n".to_vec(), "not a VTK file, but a pointer of git LFS"),
        (b"no XML at all".to_vec(), "not a VTK file"),
        (Vec::new(), "not a VTK file"),
    ];
    for (bytes, expected) in cases {
        let message = format!("{:#}", read_all(&bytes).unwrap_err());
        assert!(message.contains(expected), "expected '{expected}', got '{message}'");
    }
}

#[test]
fn a_list_names_files_beside_it_once() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("piece.vtu"), tetrahedra(PLAIN)).unwrap();
    let open = |sources: &[&str]| {
        let pieces: String = sources.iter().map(|source| format!("<Piece Source=\"{source}\"/>")).collect();
        let kind = "PUnstructuredGrid";
        let path = folder.path().join("list.pvtu");
        std::fs::write(&path, format!("<VTKFile type=\"{kind}\"><{kind}>{pieces}</{kind}></VTKFile>")).unwrap();
        crate::input::vtk_xml::open(&path).map(|grid| grid.cells())
    };
    assert_eq!(open(&["piece.vtu"]).unwrap(), 3);
    assert_eq!(open(&["./piece.vtu"]).unwrap(), 3);
    let cases: [(&[&str], &str); 6] = [
        (&["piece.vtu", "piece.vtu"], "'piece.vtu' is listed twice"),
        (&["/dev/zero"], "piece 0 must lie beside the list or in a folder there, got \"/dev/zero\""),
        (&["piece.vtu", "../piece.vtu"], "piece 1 must lie beside"),
        (&["a/../../piece.vtu"], "piece 0 must lie beside"),
        (&["list.pvtu"], "a list of files cannot be in a list"),
        (&["."], "it is a directory"),
    ];
    for (sources, expected) in cases {
        let message = format!("{:#}", open(sources).unwrap_err());
        assert!(message.contains(expected), "expected '{expected}', got '{message}'");
    }
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("/dev/zero", folder.path().join("zero.vtu")).unwrap();
        assert!(format!("{:#}", open(&["zero.vtu"]).unwrap_err()).contains("it is not a regular file"));
    }
}

#[test]
fn xml_that_takes_long_to_read_is_refused() {
    let attributes: String = (0..100_000).map(|at| format!(" a{at}=\"1\"")).collect();
    let namespaces: String = (0..300).map(|at| format!("<a xmlns:b{at}=\"c{at}\"/>")).collect();
    let cases = [
        ("a quote", format!("<VTKFile a=\"{}\"/>", ">".repeat(1_000_000)), "a tag of more than"),
        ("attributes", format!("<VTKFile{attributes}/>"), "a tag of more than"),
        ("namespaces", format!("<VTKFile>{namespaces}</VTKFile>"), "namespaces"),
        ("sections", format!("<VTKFile>{}</VTKFile>", "<![CDATA[a]]>".repeat(300_000)), "it must hold PolyData"),
        ("levels", format!("<VTKFile>{}", "<a>".repeat(300_000)), "its XML cannot be read"),
        ("entities", "<!DOCTYPE a [<!ENTITY b \"c\">]><VTKFile>&b;</VTKFile>".to_string(), "its XML cannot be read"),
    ];
    for (case, text, expected) in cases {
        let start = std::time::Instant::now();
        let message = format!("{:#}", open_bytes("odd.vtu", text.as_bytes()).map(|_| ()).unwrap_err());
        assert!(message.contains(expected), "{case}: {message}");
        assert!(start.elapsed().as_secs() < 10, "{case} took {:?}", start.elapsed());
    }
}

#[test]
fn a_face_that_many_polyhedra_share_costs_no_more_than_cells_may() {
    let array = |name: &str, numbers: &str| format!("<DataArray type=\"Int64\" Name=\"{name}\">{numbers}</DataArray>");
    let count = 20_000;
    let cells = [
        array("connectivity", "0"),
        array("offsets", "1"),
        array("types", "42"),
        array("face_connectivity", &"0 ".repeat(count)),
        array("face_offsets", &count.to_string()),
        array("polyhedron_to_faces", &"0 ".repeat(count)),
        array("polyhedron_offsets", &count.to_string()),
    ]
    .concat();
    let kind = "UnstructuredGrid";
    let text = format!(
        "<VTKFile type=\"{kind}\"><{kind}><Piece NumberOfPoints=\"1\" NumberOfCells=\"1\"><Points><DataArray \
         type=\"Float32\" NumberOfComponents=\"3\">0 0 0</DataArray></Points><Cells>{cells}</Cells></Piece></{kind}></VTKFile>"
    );
    let taken = crate::counting::most_bytes(|| {
        let message = format!("{:#}", read_all(text.as_bytes()).unwrap_err());
        assert!(message.contains("at most 16777216 can be read at once"), "{message}");
    });
    assert!(taken < 600 << 20, "{taken} bytes");
}

#[test]
fn blocks_that_promise_too_much_cost_no_memory() {
    for codec in [Codec::Zlib, Codec::Lz4, Codec::Lzma] {
        let style = Style { mode: Mode::AppendedRaw, codec: Some(codec), word: 8, block: 1 << 20, ..PLAIN };
        let whole = tetrahedra(style);
        let start = whole.windows(4).position(|window| window == b"   _").unwrap() + 4;
        // Number, size and last size of the blocks of the first array, and the size of its packed block.
        for (place, number) in [(0, u64::MAX), (0, 1 << 40), (2, 1 << 20), (3, u64::MAX), (3, 1 << 50)] {
            let mut bytes = whole.clone();
            bytes[start + 8 * place..][..8].copy_from_slice(&u64::to_le_bytes(number));
            assert!(read_all(&bytes).is_err(), "{codec:?} {place} {number}");
        }
    }
}
