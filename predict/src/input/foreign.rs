//! What a file is that is not what its name says.

/// What the first bytes of a file tell, if they are those of something that often takes the place of data.
pub(super) fn name(bytes: &[u8]) -> Option<&'static str> {
    let start = bytes.trim_ascii_start();
    let begins = |text: &str| start.get(..text.len()).is_some_and(|head| head.eq_ignore_ascii_case(text.as_bytes()));
    Some(match () {
        () if begins("version https://git-lfs") => "a pointer of git LFS: the data themselves come with 'git lfs pull'",
        () if begins("<!doctype html") || begins("<html") => "a page of a web server, perhaps of a failed download",
        () if bytes.starts_with(b"\x1f\x8b") => "compressed with gzip: unpack it first",
        () if bytes.starts_with(b"PK\x03\x04") => "a zip archive: unpack it first",
        () if begins("# vtk DataFile") => "a VTK file of the old form, which is named .vtk",
        () if begins("ply") => "a PLY file, which is named .ply",
        () if bytes.starts_with(b"\x93NUMPY") => "an array of NumPy, which is named .npy",
        () => return None,
    })
}
