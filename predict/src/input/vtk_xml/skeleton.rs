//! The XML of a file without its numbers, which can be larger than the memory.
//!
//! Numbers stand between the tags of `DataArray`, or behind `<AppendedData>`, where they need not even be text. The former
//! are left out and their places noted; at the latter the XML is cut.

use std::ops::Range;

use anyhow::{Result, bail, ensure};
use memchr::{memchr, memmem};

use super::file::SharedFile;

/// XML without numbers that a file may have; one of 100,000 pieces has about a third of it.
const LONGEST: usize = 256 << 20;

/// Bytes of a tag at most: the XML reader takes time that grows with the square of a tag's attributes.
const LONGEST_TAG: usize = 8 << 10;

/// Namespaces at most, of which VTK's files have none, for a like reason.
const MOST_NAMESPACES: usize = 16;

/// Bytes that are looked through at once.
const WINDOW: usize = 1 << 18;

/// What is left of a file without its numbers.
pub(super) struct Skeleton {
    pub xml: String,
    /// Where the text of each `DataArray` lies in the file, in their order.
    pub inline: Vec<Range<u64>>,
    /// Where the appended data begin, behind their `_`.
    pub appended: Option<u64>,
}

/// A file, looked through from front to back.
struct Scanner<'a> {
    file: &'a SharedFile,
    window: Vec<u8>,
    /// Place of the window in the file.
    start: u64,
    /// Place in the window.
    at: usize,
}

impl Scanner<'_> {
    /// What the window holds from here on; nothing at the end of the file.
    fn rest(&mut self) -> Result<&[u8]> {
        if self.at == self.window.len() {
            self.start += self.at as u64;
            let length = (self.file.len() - self.start).min(WINDOW as u64) as usize;
            (self.window, self.at) = (self.file.read(self.start, length)?, 0);
        }
        Ok(&self.window[self.at..])
    }

    fn place(&self) -> u64 {
        self.start + self.at as u64
    }

    /// Goes on to a byte, or to the end of the file; `kept` takes what is passed.
    fn pass(&mut self, until: u8, mut kept: Option<&mut Vec<u8>>) -> Result<()> {
        loop {
            let rest = self.rest()?;
            let found = memchr(until, rest);
            let length = found.unwrap_or(rest.len());
            if let Some(kept) = &mut kept {
                ensure!(
                    kept.len() + length <= LONGEST,
                    "more than {LONGEST} bytes of XML without numbers; this is no VTK file"
                );
                kept.extend_from_slice(&rest[..length]);
            }
            self.at += length;
            if found.is_some() || length == 0 {
                return Ok(());
            }
        }
    }

    /// Appends one byte to `kept` and goes on; false at the end of the file.
    fn step(&mut self, kept: &mut Vec<u8>) -> Result<bool> {
        let Some(&byte) = self.rest()?.first() else { return Ok(false) };
        kept.push(byte);
        self.at += 1;
        Ok(true)
    }
}

impl Skeleton {
    /// Looks through a file up to its appended data, or to its end.
    pub(super) fn read(file: &SharedFile) -> Result<Self> {
        let mut scanner = Scanner { file, window: Vec::new(), start: 0, at: 0 };
        let (mut xml, mut inline, mut in_array) = (Vec::new(), Vec::new(), false);
        let mut namespaces = 0;
        loop {
            let start = scanner.place();
            scanner.pass(b'<', (!in_array).then_some(&mut xml))?;
            if in_array {
                inline.push(start..scanner.place());
            }
            let tag = xml.len();
            if !scanner.step(&mut xml)? {
                break;
            }
            read_tag(&mut scanner, &mut xml, tag)?;
            let text = &xml[tag..];
            namespaces += memmem::find_iter(text, "xmlns").count();
            ensure!(namespaces <= MOST_NAMESPACES, "more than {MOST_NAMESPACES} namespaces; this is no VTK file");
            let opens =
                |name: &str| text[1..].starts_with(name.as_bytes()) && !text[1 + name.len()].is_ascii_alphanumeric();
            let (is_array, is_empty) = (opens("DataArray") || opens("Array"), text.ends_with(b"/>"));
            in_array = is_array && !is_empty;
            if is_array && is_empty {
                inline.push(0..0);
            }
            // Neither says anything here, and the XML reader takes time that grows with the square of the latter's number.
            if text.starts_with(b"<!--") || text.starts_with(b"<![CDATA[") {
                xml.truncate(tag);
            } else if opens("AppendedData") {
                let appended = (!is_empty).then(|| begin_of_data(&mut scanner)).transpose()?;
                xml.extend_from_slice(if is_empty { b"</VTKFile>" } else { b"</AppendedData></VTKFile>" });
                return Ok(Self { xml: text_of(&xml), inline, appended });
            }
        }
        Ok(Self { xml: text_of(&xml), inline, appended: None })
    }
}

/// Reads a tag behind its `<`, or a comment, to its end.
fn read_tag(scanner: &mut Scanner, xml: &mut Vec<u8>, tag: usize) -> Result<()> {
    // What of the tag was looked at, and the quote that is open behind it.
    let (mut seen, mut quote) = (tag, None);
    loop {
        scanner.pass(b'>', Some(xml))?;
        if !scanner.step(xml)? {
            bail!("the XML is cut off in the middle of a tag");
        }
        let text = &xml[tag..];
        let whole = if text.starts_with(b"<!--") {
            text.len() >= b"<!-->".len() + 2 && text.ends_with(b"-->")
        } else if text.starts_with(b"<![CDATA[") {
            text.ends_with(b"]]>")
        } else {
            ensure!(text.len() <= LONGEST_TAG, "a tag of more than {LONGEST_TAG} bytes; this is no VTK file");
            quote = open_quote(&xml[seen..], quote);
            seen = xml.len();
            quote.is_none()
        };
        if whole {
            return Ok(());
        }
    }
}

/// The quote that is open behind a part of a tag, in the middle of which a `>` ends nothing. `quote` is the one before it.
fn open_quote(part: &[u8], mut quote: Option<u8>) -> Option<u8> {
    for &byte in part {
        match quote {
            None if byte == b'"' || byte == b'\'' => quote = Some(byte),
            Some(open) if open == byte => quote = None,
            _ => {}
        }
    }
    quote
}

/// Goes on to the data behind the `_` that opens them.
fn begin_of_data(scanner: &mut Scanner) -> Result<u64> {
    let mut space = Vec::new();
    scanner.pass(b'_', Some(&mut space))?;
    ensure!(space.iter().all(u8::is_ascii_whitespace), "the appended data must begin with '_'");
    ensure!(scanner.step(&mut space)?, "truncated: the appended data are missing");
    Ok(scanner.place())
}

/// Names in other encodings than UTF-8 keep what they can.
fn text_of(xml: &[u8]) -> String {
    let xml = xml.strip_prefix(b"\xef\xbb\xbf").unwrap_or(xml);
    // The declaration may name an encoding that is no longer that of the text.
    let declaration = xml.starts_with(b"<?xml").then(|| memmem::find(xml, b"?>")).flatten();
    String::from_utf8_lossy(&xml[declaration.map_or(0, |end| end + 2)..]).into_owned()
}
