//! Where every byte of a file lies, before the first value is known.

use std::fmt;
use std::ops::Range;
use std::rc::Rc;

use anyhow::Result;

use super::Chunk;
use super::pack::Packing;

/// A file made of fixed bytes, of bytes that are copied, and of arrays with one row per point.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct FileLayout {
    /// Its name in the folder of the run.
    pub(crate) name: String,
    pieces: Vec<Piece>,
    length: u64,
    packing: Option<Packing>,
}

#[derive(Debug, Clone, PartialEq)]
struct Piece {
    offset: u64,
    content: Content,
}

#[derive(Debug, Clone, PartialEq)]
enum Content {
    Fixed(Vec<u8>),
    Copied(Copied),
    /// Rows from the first one on.
    Rows {
        source: RowSource,
        rows: Range<u64>,
    },
}

/// Bytes that are read from elsewhere when they are written.
#[derive(Clone)]
pub(crate) struct Copied {
    pub(crate) rows: u64,
    /// Bytes of a row.
    pub(crate) width: u64,
    pub(crate) read: Rc<dyn Fn(Range<u64>) -> Result<Vec<u8>>>,
}

impl fmt::Debug for Copied {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.debug_struct("Copied").field("rows", &self.rows).field("width", &self.width).finish_non_exhaustive()
    }
}

impl PartialEq for Copied {
    fn eq(&self, other: &Self) -> bool {
        (self.rows, self.width) == (other.rows, other.width) && Rc::ptr_eq(&self.read, &other.read)
    }
}

/// What the rows of an array are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RowSource {
    /// The position, three f32.
    Position,
    /// A field, by its place in the list of field specs, of so many f32.
    Field(usize, usize),
    /// The index of the point itself, as i64.
    Index,
}

impl RowSource {
    /// Bytes of one row.
    pub(crate) fn width(self) -> u64 {
        match self {
            Self::Position => 12,
            Self::Field(_, components) => 4 * components as u64,
            Self::Index => 8,
        }
    }

    /// The rows of a range of points, little-endian, of a chunk that begins at `start`.
    fn bytes(self, range: Range<u64>, start: u64, chunk: &Chunk) -> Vec<u8> {
        let floats = |values: &[f32]| values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let (from, to) = ((range.start - start) as usize, (range.end - start) as usize);
        match self {
            Self::Position => floats(chunk.points[from..to].as_flattened()),
            Self::Field(field, components) => floats(&chunk.fields[field][from * components..to * components]),
            Self::Index => range.flat_map(|index| (index as i64).to_le_bytes()).collect(),
        }
    }
}

impl FileLayout {
    /// An empty file.
    pub(crate) fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), pieces: Vec::new(), length: 0, packing: None }
    }

    /// Appends bytes that are known now.
    pub(crate) fn fixed(self, bytes: Vec<u8>) -> Self {
        let length = bytes.len() as u64;
        self.append(Content::Fixed(bytes), length)
    }

    /// Appends bytes that are read when they are written.
    pub(crate) fn copied(self, copied: Copied) -> Self {
        let length = copied.rows * copied.width;
        self.append(Content::Copied(copied), length)
    }

    /// Appends an array with one row for each of some points.
    pub(crate) fn rows(self, source: RowSource, rows: Range<u64>) -> Self {
        let length = (rows.end - rows.start) * source.width();
        self.append(Content::Rows { source, rows }, length)
    }

    /// The file is compressed when it is complete.
    pub(crate) fn packed(mut self, packing: Option<Packing>) -> Self {
        self.packing = packing;
        self
    }

    fn append(mut self, content: Content, length: u64) -> Self {
        self.pieces.push(Piece { offset: self.length, content });
        self.length += length;
        self
    }

    /// Bytes of the whole file, before it is compressed.
    pub(crate) fn len(&self) -> u64 {
        self.length
    }

    /// How it is compressed when it is complete, if it is.
    pub(crate) fn packing(&self) -> Option<&Packing> {
        self.packing.as_ref()
    }

    /// A small file in memory, of one chunk with all points.
    pub(crate) fn to_bytes(&self, chunk: &Chunk) -> Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(self.length)?];
        let mut write = |offset: u64, piece: &[u8]| bytes[offset as usize..][..piece.len()].copy_from_slice(piece);
        self.fixed_pieces().for_each(|(offset, piece)| write(offset, piece));
        for (offset, copied) in self.copied_pieces() {
            write(offset, &(copied.read)(0..copied.rows)?);
        }
        let points = chunk.points.len() as u64;
        self.chunk_pieces(0..points, chunk).for_each(|(offset, piece)| write(offset, &piece));
        match &self.packing {
            None => Ok(bytes),
            Some(packing) => packing.pack_in_memory(&bytes),
        }
    }

    /// The bytes that are known now, with their offsets.
    pub(crate) fn fixed_pieces(&self) -> impl Iterator<Item = (u64, &[u8])> {
        self.pieces.iter().filter_map(|piece| match &piece.content {
            Content::Fixed(bytes) => Some((piece.offset, bytes.as_slice())),
            Content::Copied(_) | Content::Rows { .. } => None,
        })
    }

    /// What is copied, with its offsets.
    pub(crate) fn copied_pieces(&self) -> impl Iterator<Item = (u64, &Copied)> {
        self.pieces.iter().filter_map(|piece| match &piece.content {
            Content::Copied(copied) => Some((piece.offset, copied)),
            Content::Fixed(_) | Content::Rows { .. } => None,
        })
    }

    /// The bytes of a chunk, with their offsets.
    pub(crate) fn chunk_pieces(&self, range: Range<u64>, chunk: &Chunk) -> impl Iterator<Item = (u64, Vec<u8>)> {
        self.pieces.iter().filter_map(move |piece| match &piece.content {
            Content::Fixed(_) | Content::Copied(_) => None,
            Content::Rows { source, rows } => {
                let own = range.start.max(rows.start)..range.end.min(rows.end);
                let offset = piece.offset + own.start.saturating_sub(rows.start) * source.width();
                (!own.is_empty()).then(|| (offset, source.bytes(own, range.start, chunk)))
            }
        })
    }
}
