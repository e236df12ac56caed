//! `--dry-run`: what would be written.

use crate::output::{Part, Space, human_bytes};
use crate::terminal::say;

/// Prints what the parts take, and what of it the disk must still hold.
pub(crate) fn print(parts: &[Part], space: Space) {
    for part in parts {
        let files: Vec<_> = part.files.iter().map(|file| file.name.as_str()).collect();
        let bytes = human_bytes(part.bytes());
        say(format_args!("{}: {} points, {bytes} in {}", part.name, part.points, files.join(" and ")));
    }
    say(format_args!("{} of disk space are needed, {} are free", human_bytes(space.needed), human_bytes(space.free)));
}
