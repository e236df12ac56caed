//! What a file is that is no checkpoint.

/// Bytes that tell.
pub(super) const FIRST_BYTES: u64 = 512;

/// Where an archive of `tar` says that it is one.
const TAR_MAGIC: usize = 257;

/// What the first bytes of a file tell, if they are those of something that often takes the place of a checkpoint.
pub(super) fn name(bytes: &[u8]) -> Option<&'static str> {
    let start = bytes.trim_ascii_start();
    let begins = |text: &str| start.get(..text.len()).is_some_and(|head| head.eq_ignore_ascii_case(text.as_bytes()));
    if begins("version https://git-lfs") {
        Some("it is a pointer of git LFS; the weights themselves come with 'git lfs pull'")
    } else if begins("<!doctype html") || begins("<html") {
        Some("it is a page of a web server, perhaps of a failed download")
    } else if bytes.get(TAR_MAGIC..TAR_MAGIC + 5) == Some(b"ustar") {
        Some("it is a tar archive, as .mdlus files are; unpack it and give the weights in it")
    } else if bytes.starts_with(b"\x1f\x8b") {
        Some("it is compressed with gzip; unpack it")
    } else if bytes.starts_with(b"\x80\x02") || bytes.starts_with(b"\x80\x04") {
        Some("it is a bare pickle, as torch.save wrote before version 1.6; load and save it again")
    } else {
        None
    }
}
