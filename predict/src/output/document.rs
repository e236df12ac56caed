//! The XML around the appended data of a VTK file.

use std::fmt::Write as _;

use super::codec::Codec;

/// What stands around the number of an array where the text of a [`Document`] has its offset. Names hold no control
/// characters.
pub(super) const OFFSET: char = '\0';

/// Letters of an offset that is filled in later.
const OFFSET_WIDTH: usize = 20;

/// The XML of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Document {
    pub(super) kind: &'static str,
    pub(super) version: &'static str,
    pub(super) body: String,
}

impl Document {
    /// All up to the appended data. Offsets are written in a fixed width where arrays are compressed.
    pub(crate) fn opening(&self, offsets: &[u64], codec: Option<Codec>) -> String {
        let Self { kind, version, body } = self;
        let (compressor, width) = match codec {
            Some(codec) => (format!(r#" compressor="{}""#, codec.compressor()), OFFSET_WIDTH),
            None => (String::new(), 0),
        };
        let mut text = format!(
            r#"<?xml version="1.0"?>
<VTKFile type="{kind}" version="{version}" byte_order="LittleEndian" header_type="UInt64"{compressor}>
  <{kind}>"#
        );
        for (at, part) in body.split(OFFSET).enumerate() {
            match part.parse().ok().filter(|_| at % 2 == 1).and_then(|array: usize| offsets.get(array)) {
                Some(offset) => drop(write!(text, "{:width$}", format!("offset=\"{offset}\""))),
                None => text.push_str(part),
            }
        }
        let _ = write!(text, "\n  </{kind}>\n  <AppendedData encoding=\"raw\">\n    _");
        text
    }

    /// All behind the appended data.
    pub(crate) fn closing(&self) -> &'static str {
        "\n  </AppendedData>\n</VTKFile>\n"
    }
}
