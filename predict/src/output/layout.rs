//! Where every byte of a file lies, before the first value is known.

use std::ops::Range;

use super::Chunk;

/// A file made of fixed bytes and of arrays with one row per point.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct FileLayout {
    /// Its name in the folder of the run.
    pub name: String,
    pieces: Vec<Piece>,
    length: u64,
}

#[derive(Debug, Clone, PartialEq)]
struct Piece {
    offset: u64,
    content: Content,
}

#[derive(Debug, Clone, PartialEq)]
enum Content {
    Fixed(Vec<u8>),
    Rows { source: RowSource, width: u64 },
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

    /// The rows of a range of points, little-endian.
    fn bytes(self, range: Range<u64>, chunk: &Chunk) -> Vec<u8> {
        let floats = |values: &[f32]| values.iter().flat_map(|value| value.to_le_bytes()).collect();
        match self {
            Self::Position => floats(chunk.points.as_flattened()),
            Self::Field(field, _) => floats(&chunk.fields[field]),
            Self::Index => range.flat_map(|index| (index as i64).to_le_bytes()).collect(),
        }
    }
}

impl FileLayout {
    /// An empty file.
    pub(crate) fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), pieces: Vec::new(), length: 0 }
    }

    /// Appends bytes that are known now.
    pub(crate) fn fixed(mut self, bytes: Vec<u8>) -> Self {
        let offset = self.length;
        self.length += bytes.len() as u64;
        self.pieces.push(Piece { offset, content: Content::Fixed(bytes) });
        self
    }

    /// Appends an array with one row for each of `points` points.
    pub(crate) fn rows(mut self, source: RowSource, points: u64) -> Self {
        let (offset, width) = (self.length, source.width());
        self.length += points * width;
        self.pieces.push(Piece { offset, content: Content::Rows { source, width } });
        self
    }

    /// Bytes of the whole file.
    pub(crate) fn len(&self) -> u64 {
        self.length
    }

    /// The bytes that are known now, with their offsets.
    pub(crate) fn fixed_pieces(&self) -> impl Iterator<Item = (u64, &[u8])> {
        self.pieces.iter().filter_map(|piece| match &piece.content {
            Content::Fixed(bytes) => Some((piece.offset, bytes.as_slice())),
            Content::Rows { .. } => None,
        })
    }

    /// The bytes of a chunk, with their offsets.
    pub(crate) fn chunk_pieces(&self, range: Range<u64>, chunk: &Chunk) -> impl Iterator<Item = (u64, Vec<u8>)> {
        self.pieces.iter().filter_map(move |piece| match piece.content {
            Content::Fixed(_) => None,
            Content::Rows { source, width } => {
                Some((piece.offset + range.start * width, source.bytes(range.clone(), chunk)))
            }
        })
    }
}
