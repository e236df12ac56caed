//! VTK's XML files: `.vtp` and `.vtu`, and the `.pvtp` and `.pvtu` that list several of them.
//!
//! ```text
//! file → skeleton (XML without numbers) → pieces → arrays: place in the file → base64 → blocks → numbers
//! ```
//!
//! | file | idea |
//! |---|---|
//! | `file.rs` | a file that is read at any place |
//! | `skeleton.rs` | the XML without the numbers |
//! | `header.rs` | byte order, compression, kinds of numbers |
//! | `stream.rs` | bytes in a file, raw or base64 |
//! | `codec.rs` | one compressed block |
//! | `payload.rs` | the bytes of an array, unpacked |
//! | `ascii.rs` | numbers written out |
//! | `array.rs` | the numbers of an array |
//! | `piece.rs` | points, cells and arrays of a piece |
//! | `parallel.rs` | files that list other files |
//!
//! Nothing is read before it is asked for, and then block by block, so memory stays small whatever the size of the file.
//! What a file promises is compared with its length before memory is reserved for it.

mod array;
mod ascii;
mod codec;
mod file;
mod header;
mod parallel;
mod payload;
mod piece;
mod skeleton;
mod stream;
#[cfg(test)]
pub(crate) mod tests;

use std::path::Path;

use anyhow::{Context, Result, bail};
use roxmltree::{Document, Node, ParsingOptions};

use super::foreign;
use super::grid::{Grid, Piece};
use file::SharedFile;
use header::Header;
use piece::PieceReader;
use skeleton::Skeleton;

/// The extensions of these files.
pub(super) const EXTENSIONS: [&str; 4] = ["vtp", "vtu", "pvtp", "pvtu"];

/// What of a file tells whether it is another kind of file.
const FIRST_BYTES: u64 = 256;

/// Opens a file of any of the kinds.
///
/// # Errors
/// A file that cannot be read, is no VTK file, or holds another kind of data.
pub(super) fn open(path: &Path) -> Result<Grid> {
    Grid::new(pieces(path, true).with_context(|| path.display().to_string())?)
}

/// The pieces of a file, and of those that it lists, unless it is itself in a list.
fn pieces(path: &Path, follow: bool) -> Result<Vec<Piece>> {
    let file = SharedFile::open(path)?;
    if let Some(what) = foreign::name(&file.read(0, file.len().min(FIRST_BYTES) as usize)?) {
        bail!("not a VTK file, but {what}");
    }
    let skeleton = Skeleton::read(&file)?;
    let options = ParsingOptions { nodes_limit: 1 << 24, ..ParsingOptions::default() };
    let document = Document::parse_with_options(&skeleton.xml, options);
    let document = document.context("not a VTK file: its XML cannot be read")?;
    let root = document.root_element();
    if !root.has_tag_name("VTKFile") {
        bail!("not a VTK file: its XML begins with <{}>", root.tag_name().name());
    }
    let kind = root.attribute("type").unwrap_or_default();
    let data = || child(root, kind).with_context(|| format!("it is of type {kind}, but has no <{kind}>"));
    match kind {
        "PolyData" | "UnstructuredGrid" => {
            let reader = PieceReader::new(&file, Header::read(root)?, &document, &skeleton)?;
            let parts = children(data()?, "Piece");
            let pieces = parts.enumerate().map(|(at, part)| {
                let piece = if kind == "PolyData" { reader.poly_data(part) } else { reader.unstructured(part) };
                piece.with_context(|| format!("piece {at}"))
            });
            let pieces = pieces.collect::<Result<Vec<_>>>()?;
            if pieces.is_empty() {
                bail!("it has no <Piece>");
            }
            Ok(pieces)
        }
        "PPolyData" | "PUnstructuredGrid" if follow => {
            file.close();
            parallel::pieces(path, data()?)
        }
        "PPolyData" | "PUnstructuredGrid" => bail!("a list of files cannot be in a list of files"),
        other => bail!(
            "it must hold PolyData or an UnstructuredGrid, got '{other}'; ParaView's filter Append Datasets turns others into one"
        ),
    }
}

fn child<'a>(node: Node<'a, 'a>, name: &str) -> Option<Node<'a, 'a>> {
    node.children().find(|child| child.has_tag_name(name))
}

fn children<'a>(node: Node<'a, 'a>, name: &'static str) -> impl Iterator<Item = Node<'a, 'a>> {
    node.children().filter(move |child| child.has_tag_name(name))
}
