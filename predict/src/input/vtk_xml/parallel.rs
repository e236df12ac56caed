//! `.pvtp` and `.pvtu`: files that list one file for each part of a mesh.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use roxmltree::Node;

use super::{children, pieces as pieces_of};
use crate::input::grid::Piece;

/// The pieces of all files of a list, which are named beside it.
pub(super) fn pieces(path: &Path, list: Node) -> Result<Vec<Piece>> {
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut pieces = Vec::new();
    for (at, entry) in children(list, "Piece").enumerate() {
        let source = entry.attribute("Source").with_context(|| format!("piece {at} of the list has no Source"))?;
        let file = folder.join(source);
        let own = pieces_of(&file, false).with_context(|| source.to_string())?;
        // Thousands of files may be listed, more than may be open at once.
        own.into_iter().for_each(|mut piece| {
            piece.close();
            pieces.push(piece);
        });
    }
    ensure!(!pieces.is_empty(), "it lists no files");
    Ok(pieces)
}
