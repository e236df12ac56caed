//! The files hold what was predicted, where their formats say.

use std::io::Read;

use candle_mixed_attention::candle_core::{Device, safetensors};

use super::*;
use crate::output::npz::npz_bytes;
use crate::output::{Shape, vtk_layout, write_npz};

fn finished() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    run(LocalDisk, folder.path(), Existing::Refuse).unwrap();
    folder
}

/// The bytes of an array of the appended section, found as the format says: by its offset, behind its length.
fn appended<'a>(file: &'a [u8], name: &str) -> &'a [u8] {
    let marker = b"<AppendedData encoding=\"raw\">\n    _";
    let data = file.windows(marker.len()).position(|window| window == marker).unwrap() + marker.len();
    let header = std::str::from_utf8(&file[..data]).unwrap();
    let element = header.lines().find(|line| line.contains(&format!("Name=\"{name}\""))).unwrap();
    let offset = element.split("offset=\"").nth(1).unwrap().split('"').next().unwrap();
    let block = &file[data + offset.parse::<usize>().unwrap()..];
    let length = u64::from_le_bytes(block[..8].try_into().unwrap());
    &block[8..8 + length as usize]
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|&value| f32::from_le_bytes(value)).collect()
}

fn integers(bytes: &[u8]) -> Vec<i64> {
    bytes.as_chunks().0.iter().map(|&value| i64::from_le_bytes(value)).collect()
}

#[test]
fn the_vtk_file_of_a_mesh_holds_points_faces_and_fields() {
    let folder = finished();
    let file = std::fs::read(folder.path().join("surface.vtp")).unwrap();
    let expected = synthetic(0..SURFACE_POINTS).unwrap();
    assert_eq!(floats(appended(&file, "Points")), expected.points.as_flattened());
    assert_eq!(floats(appended(&file, "velocity")), expected.fields[0]);
    assert_eq!(floats(appended(&file, "pressure")), expected.fields[1]);
    assert_eq!(integers(appended(&file, "connectivity")), [0, 1, 2, 0, 1, 3, 2]);
    assert_eq!(integers(appended(&file, "offsets")), [3, 7]);
    let header = String::from_utf8_lossy(&file);
    assert!(header.contains(r#"NumberOfPoints="4" NumberOfVerts="0""#) && header.contains(r#"NumberOfPolys="2""#));
    assert!(header.contains(r#"<PointData Scalars="pressure" Vectors="velocity">"#));
    assert!(file.ends_with(b"\n  </AppendedData>\n</VTKFile>\n"));
}

#[test]
fn the_vtk_file_of_a_cloud_is_one_cell_of_all_points() {
    let folder = finished();
    let file = std::fs::read(folder.path().join("volume.vtp")).unwrap();
    assert_eq!(floats(appended(&file, "Points")).len(), VOLUME_POINTS as usize * 3);
    assert!(integers(appended(&file, "connectivity")).into_iter().eq(0..VOLUME_POINTS as i64));
    assert_eq!(integers(appended(&file, "offsets")), [VOLUME_POINTS as i64]);
    assert!(String::from_utf8_lossy(&file).contains(r#"NumberOfVerts="1""#));
}

#[test]
fn names_are_escaped_in_xml() {
    let fields = [FieldSpec::new("a<b & \"c\"", 1)];
    let layout = vtk_layout("odd", 1, &fields, &Shape::Cloud, None);
    let (_, header) = layout.fixed_pieces().next().unwrap();
    assert!(String::from_utf8_lossy(header).contains(r#"Name="a&lt;b &amp; &quot;c&quot;""#));
}

#[test]
fn the_safetensors_file_is_read_by_candle() {
    let folder = finished();
    let tensors = safetensors::load(folder.path().join("volume.safetensors"), &Device::Cpu).unwrap();
    let expected = synthetic(0..VOLUME_POINTS).unwrap();
    let values = |name: &str| tensors[name].flatten_all().unwrap().to_vec1::<f32>().unwrap();
    assert_eq!(tensors["velocity"].dims(), [VOLUME_POINTS as usize, 3]);
    assert_eq!(values("positions"), expected.points.as_flattened());
    assert_eq!(values("velocity"), expected.fields[0]);
    assert_eq!(values("pressure"), expected.fields[1]);
}

#[test]
fn the_npz_file_holds_the_same_numbers() {
    let folder = finished();
    let (source, npz) = (folder.path().join("volume.safetensors"), folder.path().join("volume.npz"));
    write_npz(&LocalDisk, &source, &npz, VOLUME_POINTS, &fields()).unwrap();
    let mut archive = zip::ZipArchive::new(std::fs::File::open(&npz).unwrap()).unwrap();
    let mut member = |name: &str| {
        let mut bytes = Vec::new();
        archive.by_name(name).unwrap().read_to_end(&mut bytes).unwrap();
        let file = npyz::NpyFile::new(bytes.as_slice()).unwrap();
        (file.shape().to_vec(), file.into_vec::<f32>().unwrap())
    };
    let expected = synthetic(0..VOLUME_POINTS).unwrap();
    assert_eq!(member("positions.npy"), (vec![VOLUME_POINTS, 3], expected.points.as_flattened().to_vec()));
    assert_eq!(member("velocity.npy"), (vec![VOLUME_POINTS, 3], expected.fields[0].clone()));
    assert_eq!(member("pressure.npy"), (vec![VOLUME_POINTS, 1], expected.fields[1].clone()));

    let first = std::fs::read(&npz).unwrap();
    assert!(first.len() as u64 <= npz_bytes(VOLUME_POINTS, &fields()), "{} bytes", first.len());
    write_npz(&LocalDisk, &source, &npz, VOLUME_POINTS, &fields()).unwrap();
    assert_eq!(std::fs::read(&npz).unwrap(), first, "equal results must be equal files");
}
