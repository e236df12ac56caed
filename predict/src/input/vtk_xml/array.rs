//! A `DataArray`: of which kind its numbers are, and where.

use std::ops::Range;
use std::str::FromStr;

use anyhow::{Context, Result, bail, ensure};

use super::ascii::Text;
use super::file::SharedFile;
use super::header::Header;
use super::payload::Payload;
use super::stream::Stream;
use crate::input::grid::{Element, Numbers};

/// Where the numbers of an array lie.
#[derive(Debug, Clone)]
pub(super) enum Place {
    /// Written out between two places of the file.
    Text(Range<u64>),
    /// In base64 between two places of the file.
    Inline(Range<u64>),
    /// From a place on, up to the end of the file at most.
    Raw(u64),
    Base64(u64),
}

/// The numbers of a file's array. Its header is read when somebody asks for them.
pub(super) struct StoredNumbers {
    file: SharedFile,
    header: Header,
    element: Element,
    place: Place,
    /// How many there must be, where that is known beforehand.
    expected: Option<u64>,
    opened: Option<Opened>,
}

enum Opened {
    Text(Text),
    Binary(Payload),
}

impl StoredNumbers {
    /// Numbers that are not looked at yet.
    pub(super) fn new(
        file: &SharedFile,
        header: Header,
        element: Element,
        place: Place,
        expected: Option<u64>,
    ) -> Self {
        Self { file: file.clone(), header, element, place, expected, opened: None }
    }

    fn open(&mut self) -> Result<&mut Opened> {
        if self.opened.is_none() {
            let file = self.file.clone();
            let stream = match self.place.clone() {
                Place::Text(range) => {
                    return Ok(self.opened.insert(Opened::Text(Text::new(file, range))));
                }
                Place::Inline(range) => Stream::base64(file, range.start, range.end)?,
                Place::Raw(start) => Stream::raw(file, start, self.file.len()),
                Place::Base64(start) => Stream::base64(file, start, self.file.len())?,
            };
            let payload = Payload::open(stream, &self.header)?;
            let (bytes, size) = (payload.len(), self.element.size());
            ensure!(bytes % size == 0, "its {bytes} bytes are no whole number of {:?}", self.element);
            if let Some(expected) = self.expected {
                ensure!(bytes / size == expected, "must hold {expected} numbers, got {}", bytes / size);
            }
            self.opened = Some(Opened::Binary(payload));
        }
        self.opened.as_mut().context("it was not opened")
    }

    /// The bytes of some numbers, in the byte order of the file.
    fn stored(payload: &mut Payload, range: &Range<u64>, size: u64) -> Result<Vec<u8>> {
        let present = payload.len() / size;
        ensure!(range.end <= present, "ends early: expected {} numbers, got {present}", range.end);
        payload.read(range.start * size..range.end * size)
    }
}

impl Numbers for StoredNumbers {
    fn element(&self) -> Element {
        self.element
    }

    fn count(&mut self) -> Result<u64> {
        if let Some(expected) = self.expected {
            return Ok(expected);
        }
        let size = self.element.size();
        match self.open()? {
            Opened::Text(text) => text.count(),
            Opened::Binary(payload) => Ok(payload.len() / size),
        }
    }

    fn bytes(&mut self, range: Range<u64>) -> Result<Vec<u8>> {
        let (element, big) = (self.element, self.header.big_endian);
        if range.is_empty() {
            return Ok(Vec::new());
        }
        match self.open()? {
            Opened::Text(text) => written_out(text, range, element),
            Opened::Binary(payload) => {
                let mut bytes = Self::stored(payload, &range, element.size())?;
                if big {
                    bytes.chunks_exact_mut(element.size() as usize).for_each(<[u8]>::reverse);
                }
                Ok(bytes)
            }
        }
    }

    fn floats(&mut self, range: Range<u64>) -> Result<Vec<f64>> {
        let (element, big) = (self.element, self.header.big_endian);
        if range.is_empty() {
            return Ok(Vec::new());
        }
        match self.open()? {
            Opened::Text(text) => text.read(range),
            Opened::Binary(payload) => {
                let bytes = Self::stored(payload, &range, element.size())?;
                Ok(match element {
                    Element::Float32 => decode(&bytes, big, |bytes| f64::from(f32::from_le_bytes(bytes))),
                    Element::Float64 => decode(&bytes, big, f64::from_le_bytes),
                    Element::UInt64 => decode(&bytes, big, |bytes| u64::from_le_bytes(bytes) as f64),
                    _ => integers(&bytes, big, element).into_iter().map(|number| number as f64).collect(),
                })
            }
        }
    }

    fn integers(&mut self, range: Range<u64>) -> Result<Vec<i64>> {
        let (element, big) = (self.element, self.header.big_endian);
        ensure!(element.is_whole(), "the numbers must be integers, got {element:?}");
        if range.is_empty() {
            return Ok(Vec::new());
        }
        match self.open()? {
            Opened::Text(text) => text.read(range),
            Opened::Binary(payload) => {
                let bytes = Self::stored(payload, &range, element.size())?;
                if element == Element::UInt64 {
                    let beyond = decode(&bytes, big, u64::from_le_bytes)
                        .into_iter()
                        .find(|&number| i64::try_from(number).is_err());
                    if let Some(number) = beyond {
                        bail!("{number} is more than a file can count");
                    }
                }
                Ok(integers(&bytes, big, element))
            }
        }
    }

    fn close(&mut self) {
        match &self.opened {
            Some(Opened::Text(text)) => text.close(),
            Some(Opened::Binary(payload)) => payload.close(),
            None => self.file.close(),
        }
    }
}

/// Numbers of a text as bytes of a kind.
fn written_out(text: &mut Text, range: Range<u64>, element: Element) -> Result<Vec<u8>> {
    fn packed<T: FromStr, const N: usize>(
        text: &mut Text,
        range: Range<u64>,
        bytes: fn(T) -> [u8; N],
    ) -> Result<Vec<u8>> {
        Ok(text.read(range)?.into_iter().flat_map(bytes).collect())
    }
    match element {
        Element::Int8 => packed(text, range, i8::to_le_bytes),
        Element::UInt8 => packed(text, range, u8::to_le_bytes),
        Element::Int16 => packed(text, range, i16::to_le_bytes),
        Element::UInt16 => packed(text, range, u16::to_le_bytes),
        Element::Int32 => packed(text, range, i32::to_le_bytes),
        Element::UInt32 => packed(text, range, u32::to_le_bytes),
        Element::Int64 => packed(text, range, i64::to_le_bytes),
        Element::UInt64 => packed(text, range, u64::to_le_bytes),
        Element::Float32 => packed(text, range, f32::to_le_bytes),
        Element::Float64 => packed(text, range, f64::to_le_bytes),
    }
}

fn integers(bytes: &[u8], big: bool, element: Element) -> Vec<i64> {
    match element {
        Element::Int8 => decode(bytes, big, |bytes| i8::from_le_bytes(bytes).into()),
        Element::UInt8 => decode(bytes, big, |bytes| u8::from_le_bytes(bytes).into()),
        Element::Int16 => decode(bytes, big, |bytes| i16::from_le_bytes(bytes).into()),
        Element::UInt16 => decode(bytes, big, |bytes| u16::from_le_bytes(bytes).into()),
        Element::Int32 => decode(bytes, big, |bytes| i32::from_le_bytes(bytes).into()),
        Element::UInt32 => decode(bytes, big, |bytes| u32::from_le_bytes(bytes).into()),
        Element::Int64 => decode(bytes, big, i64::from_le_bytes),
        Element::UInt64 | Element::Float32 | Element::Float64 => {
            decode(bytes, big, |bytes| u64::from_le_bytes(bytes) as i64)
        }
    }
}

/// Numbers of `N` bytes each, turned round first where the file is big-endian.
fn decode<const N: usize, T>(bytes: &[u8], big: bool, number: impl Fn([u8; N]) -> T) -> Vec<T> {
    let turned = |mut bytes: [u8; N]| {
        bytes.reverse();
        bytes
    };
    let (words, _) = bytes.as_chunks::<N>();
    match big {
        false => words.iter().map(|&bytes| number(bytes)).collect(),
        true => words.iter().map(|&bytes| number(turned(bytes))).collect(),
    }
}
