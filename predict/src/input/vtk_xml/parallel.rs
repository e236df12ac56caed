//! `.pvtp` and `.pvtu`: files that list one file for each part of a mesh.

use std::collections::HashSet;
use std::path::{Component, Path};

use anyhow::{Context, Result, ensure};
use roxmltree::Node;

use super::{children, pieces as pieces_of};
use crate::input::grid::Piece;

/// The pieces of all files of a list, which lie beside it or in folders there.
pub(super) fn pieces(path: &Path, list: Node) -> Result<Vec<Piece>> {
    let folder = path.parent().unwrap_or(Path::new(""));
    let (mut pieces, mut listed) = (Vec::new(), HashSet::new());
    for (at, entry) in children(list, "Piece").enumerate() {
        let source = entry.attribute("Source").with_context(|| format!("piece {at} of the list has no Source"))?;
        let inside = |part: Component| matches!(part, Component::Normal(_) | Component::CurDir);
        let beside = !source.contains('\0') && Path::new(source).components().all(inside);
        ensure!(beside, "piece {at} must lie beside the list or in a folder there, got {source:?}");
        ensure!(listed.insert(source), "'{source}' is listed twice");
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
