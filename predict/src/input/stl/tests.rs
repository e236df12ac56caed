use super::*;

const CORNERS: [[f32; 3]; 4] = [[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];
const TETRAHEDRON: [[usize; 3]; 4] = [[0, 2, 1], [0, 1, 3], [1, 2, 3], [0, 3, 2]];

fn binary() -> Vec<u8> {
    let mut bytes = Vec::new();
    let triangle = |corners: [usize; 3]| stl_io::Triangle {
        normal: stl_io::Normal::new([0.0; 3]),
        vertices: corners.map(|corner| stl_io::Vertex::new(CORNERS[corner])),
    };
    stl_io::write_stl(&mut bytes, TETRAHEDRON.map(triangle).iter()).unwrap();
    bytes
}

fn ascii(name: &str) -> String {
    let mut text = format!("solid{name}\n");
    for corners in TETRAHEDRON {
        text += "facet normal 0 0 0\nouter loop\n";
        for [x, y, z] in corners.map(|corner| CORNERS[corner]) {
            text += &format!("vertex {x} {y} {z}\n");
        }
        text += "endloop\nendfacet\n";
    }
    text + &format!("endsolid{name}\n")
}

/// Points and faces, without groups.
fn shape(mesh: &Mesh) -> (Vec<[f32; 3]>, Vec<Vec<u32>>) {
    (mesh.points().to_vec(), mesh.faces().map(<[u32]>::to_vec).collect())
}

fn groups(bytes: &[u8]) -> (Vec<String>, Vec<u32>) {
    let mesh = parse(bytes).unwrap();
    (mesh.groups().to_vec(), mesh.face_groups().to_vec())
}

#[test]
fn every_way_to_write_a_mesh_gives_the_same() {
    let expected = shape(&parse(&binary()).unwrap());
    assert_eq!((expected.0.len(), expected.1.len()), (4, 4));
    let text = ascii(" body");
    let latin = text.replace("body", "b\u{f6}dy").replace('\u{f6}', "?").into_bytes();
    let latin: Vec<u8> = latin.into_iter().map(|byte| if byte == b'?' { 0xf6 } else { byte }).collect();
    let texts: Vec<(&str, Vec<u8>)> = vec![
        ("as it is", text.clone().into()),
        ("without a name", ascii("").into()),
        ("Windows", text.replace('\n', "\r\n").into()),
        ("old Macintosh", text.replace('\n', "\r").into()),
        ("upper case", text.to_uppercase().into()),
        ("UTF-8 name", ascii(" K\u{f6}rper \u{e9}").into()),
        ("other bytes in the name", latin),
        ("a name of several words", ascii(" my car body").into()),
        ("a name beginning with endsolid", ascii(" endsolid_part").into()),
        ("byte-order mark", [b"\xef\xbb\xbf", text.as_bytes()].concat()),
        ("leading blank lines", format!("\n \n\t\n{text}").into()),
        ("blank lines", text.replace('\n', "\n\n").into()),
        ("comments", format!("# one\n; two\n{}", text.replace("outer", "// three\nouter")).into()),
        ("colours", text.replacen("facet", "color 0.1 0.2 0.3\nfacet", 1).into()),
        ("end solid", text.replace("endsolid", "end solid").into()),
        ("normals that are not finite", text.replace("normal 0 0 0", "normal nan -nan inf").into()),
        ("no normals", text.replace("facet normal 0 0 0", "facet").into()),
        ("tabs and blanks", text.replace("vertex ", "\t vertex\t  ").replace("facet normal", "facet   normal").into()),
        ("exponents", text.replace("vertex 1 0 0", "vertex +1.000000E+00 0.0e-10 .0").into()),
        ("zeros of both signs", text.replacen("vertex 0 0 0", "vertex -0 0 -0.0", 1).into()),
        ("no end of the last line", text.trim_end().into()),
    ];
    for (what, bytes) in texts {
        let mesh = parse(&bytes).unwrap_or_else(|error| panic!("{what}: {error:#}"));
        assert_eq!(shape(&mesh), expected, "{what}");
    }
}

#[test]
fn the_length_says_that_a_file_is_binary_and_what_it_holds() {
    let expected = parse(&binary()).unwrap();
    let with = |at: usize, new: &[u8]| {
        let mut bytes = binary();
        bytes[at..at + new.len()].copy_from_slice(new);
        bytes
    };
    let mut swapped = binary();
    swapped[80..84].reverse();
    for triangle in swapped[84..].chunks_exact_mut(50) {
        triangle[..48].chunks_exact_mut(4).for_each(<[u8]>::reverse);
    }
    let cases = [
        ("begins with solid", with(0, b"solid binary")),
        ("begins like a text", with(0, b"solid x\nfacet normal 0 0 0\n")),
        ("number unknown", with(80, &[0; 4])),
        ("number unknown", with(80, &[0xff; 4])),
        ("number wrong", with(80, &11u32.to_le_bytes())),
        ("attributes", with(84 + 48, &[0x1f, 0x80])),
        ("normal", with(84, &f32::NAN.to_le_bytes())),
        ("other byte order", swapped),
    ];
    for (what, bytes) in cases {
        assert_eq!(parse(&bytes).unwrap(), expected, "{what}");
    }
}

#[test]
fn solids_are_groups_of_faces() {
    let several = ascii(" front") + &ascii("") + &ascii(" my wheels") + "\n# end\n" + &ascii(" front");
    let names = ["front", "solid 2", "my wheels"].map(String::from).to_vec();
    let faces: Vec<u32> = [0, 1, 2, 0].into_iter().flat_map(|group| [group; 4]).collect();
    assert_eq!(groups(several.as_bytes()), (names, faces));
    assert_eq!(parse(several.as_bytes()).unwrap().points().len(), 4);
    let (mut front, mut rear) = (binary(), binary());
    front[..80].copy_from_slice(&[b"solid front".as_slice(), &[0; 69]].concat());
    rear[..80].copy_from_slice(&[b"rear  ".as_slice(), &[b' '; 74]].concat());
    let (names, faces) = groups(&[front, rear].concat());
    assert_eq!(names, ["front", "rear"]);
    assert_eq!(faces, [0, 0, 0, 0, 1, 1, 1, 1]);
    assert_eq!(groups(ascii(" K\u{f6}rper").as_bytes()).0, ["K\u{f6}rper"]);
    assert_eq!(groups(&binary()), (vec![], vec![]));
    assert_eq!(groups(ascii("").as_bytes()), (vec![], vec![]));
}

#[test]
fn damage_is_named_with_its_line_or_byte() {
    let (whole, text) = (binary(), ascii(" body"));
    let mut nan = binary();
    nan[84 + 50 + 12..][..4].copy_from_slice(&f32::NAN.to_le_bytes());
    let mut none = whole[..84].to_vec();
    none[80..].fill(0);
    let changed = |from: &str, to: &str| text.replacen(from, to, 1).into_bytes();
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (
            whole[..whole.len() - 1].to_vec(),
            "promises 4 triangles in 284 bytes, got 283; behind triangle 3 are 49 bytes, from byte 234 on",
        ),
        ([whole.as_slice(), b"tail"].concat(), "behind triangle 4 are 4 bytes, from byte 284 on"),
        (text.as_bytes()[..text.len() / 2].to_vec(), "line 16: 'f'"),
        (text.replace("endsolid body\n", "").into(), "truncated: there is no 'endsolid' after line 29"),
        (changed("vertex 1 0 0", "vertex one 0 0"), "line 6: 'vertex one 0 0': 'one' is no number"),
        (changed("vertex 1 0 0", "vertex 1,0 0 0"), "line 6: 'vertex 1,0 0 0': '1,0' is no number"),
        (changed("vertex 1 0 0", "vertex 1 0"), "line 6: 'vertex 1 0': a vertex has three numbers"),
        (changed("vertex 1 0 0", "vertex 1 0 0 0"), "here are more"),
        (changed("vertex 1 0 0", "vertex 1e39 0 0"), "'1e39' is no finite number"),
        (changed("vertex 1 0 0", "vertex nan 0 0"), "line 6: 'vertex nan 0 0': 'nan' is no finite number"),
        (changed("endloop", "vertex 0 0 0\nendloop"), "line 7: 'vertex 0 0 0': expected 'endloop'"),
        (changed("vertex 0 0 0\n", ""), "line 6: 'endloop': expected 'vertex', a facet has three and this one 2"),
        (changed("outer loop\n", ""), "line 3: 'vertex 0 0 0': expected 'outer loop'"),
        (changed("endfacet\n", ""), "expected 'endfacet'"),
        ((text.clone() + "tail").into(), "line 31: 'tail': expected a solid or the end of the file"),
        (nan, "face 1 has vertices"),
        (none, "holds no triangles"),
        (b"solid empty\nendsolid empty\n".to_vec(), "holds no triangles"),
        (b"noise".to_vec(), "not an STL file: 5 bytes"),
        (Vec::new(), "not an STL file: 0 bytes"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n".to_vec(), "git lfs pull"),
        ("<!DOCTYPE html><html></html>\n".repeat(9).into(), "a page of a web server"),
        (b"\x1f\x8b\x08and so on".to_vec(), "gzip"),
    ];
    for (bytes, expected) in cases {
        let message = format!("{:#}", parse(&bytes).unwrap_err());
        assert!(message.contains(expected), "expected '{expected}', got '{message}'");
    }
}
