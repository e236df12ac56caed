//! `--dry-run`: what would be written.

use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::output::{Disk, LocalDisk, Part, human_bytes};

/// Prints what the parts take, and checks that the disk can hold them.
pub fn print(parts: &[Part], folder: &Path) -> Result<()> {
    for part in parts {
        let files: Vec<_> = part.files.iter().map(|file| file.name.as_str()).collect();
        let bytes = human_bytes(part.bytes());
        println!("{}: {} points, {bytes} in {}", part.name, part.points, files.join(" and "));
    }
    let existing = folder.ancestors().find(|folder| folder.is_dir()).unwrap_or(Path::new("."));
    let free = LocalDisk.free_space(existing).context("--out: cannot ask for free disk space")?;
    let needed = parts.iter().map(Part::bytes).sum();
    println!("{} of disk space would be taken of {} free", human_bytes(needed), human_bytes(free));
    ensure!(needed <= free, "--out {}: the disk is too small", folder.display());
    Ok(())
}
