//! Bytes in a file, as they are or as base64 text.

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::file::SharedFile;

/// Text that is decoded at once.
const WINDOW: u64 = 1 << 16;

/// Padding is looked after by the places of groups.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// A run of bytes, read at any place.
pub(super) struct Stream {
    file: SharedFile,
    /// Where it begins in the file, and where it must end.
    start: u64,
    end: u64,
    form: Form,
}

enum Form {
    Raw,
    /// Text without blanks: byte 3n begins with letter 4n.
    Base64,
    /// Text with line breaks, which is read from front to back: letters that were passed, and their place in the file.
    Lines {
        letters: u64,
        place: u64,
    },
}

impl Stream {
    /// Bytes as they are.
    pub(super) fn raw(file: SharedFile, start: u64, end: u64) -> Self {
        Self { file, start, end, form: Form::Raw }
    }

    /// Text.
    pub(super) fn base64(file: SharedFile, start: u64, end: u64) -> Result<Self> {
        let mut start = start;
        // Blanks before the text are no part of it.
        while start < end {
            let blanks = file.read(start, (end - start).min(WINDOW) as usize)?;
            let count = blanks.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
            start += count as u64;
            if count < blanks.len() {
                break;
            }
        }
        Ok(Self { file, start, end, form: Form::Base64 })
    }

    /// The file behind it.
    pub(super) fn file(&self) -> &SharedFile {
        &self.file
    }

    /// The bytes behind the first `length`, where those are encoded by themselves.
    pub(super) fn behind_header(mut self, length: u64) -> Result<Self> {
        match self.form {
            Form::Raw => self.start += length,
            Form::Base64 | Form::Lines { .. } => {
                let letters = length.div_ceil(3) * 4;
                self.start = match self.form {
                    Form::Base64 => self.start + letters,
                    _ => self.place_of(letters)?,
                };
                // Whether there are line breaks is seen again.
                self.form = Form::Base64;
            }
        }
        ensure!(self.start <= self.end, "truncated: its header alone is longer than its text");
        Ok(self)
    }

    /// Whether the first `length` bytes end with padding, so that what follows begins a text of its own.
    pub(super) fn is_padded_after(&mut self, length: u64) -> Result<bool> {
        if matches!(self.form, Form::Raw) || length.is_multiple_of(3) {
            return Ok(false);
        }
        // With a byte more, there would be less padding.
        let (letters, padding) = (length.div_ceil(3) * 4, 3 - length % 3);
        Ok(self.letters(letters - padding, padding)?.iter().all(|&letter| letter == b'='))
    }

    /// Whether so many bytes can be there.
    pub(super) fn can_hold(&self, length: u64) -> bool {
        let room = self.end - self.start;
        match self.form {
            Form::Raw => length <= room,
            Form::Base64 | Form::Lines { .. } => length <= room / 4 * 3,
        }
    }

    /// Exactly `length` bytes from a place on.
    pub(super) fn read(&mut self, at: u64, length: usize) -> Result<Vec<u8>> {
        let end = at.checked_add(length as u64).filter(|&end| self.can_hold(end));
        let end = end.with_context(|| format!("truncated: {length} bytes are missing at byte {at} of an array"))?;
        if matches!(self.form, Form::Raw) {
            return self.file.read(self.start + at, length);
        }
        let (first, last) = (at / 3, end.div_ceil(3));
        let letters = self.letters(first * 4, (last - first) * 4)?;
        let bytes = BASE64.decode(&letters).context("its base64 text is damaged")?;
        let skipped = (at - first * 3) as usize;
        let part = bytes.get(skipped..skipped + length);
        Ok(part
            .with_context(|| format!("truncated: the text ends at byte {}", first * 3 + bytes.len() as u64))?
            .to_vec())
    }

    /// Letters of the text, without blanks.
    fn letters(&mut self, first: u64, count: u64) -> Result<Vec<u8>> {
        if matches!(self.form, Form::Base64) {
            let room = (self.end - self.start).saturating_sub(first);
            let letters = self.file.read(self.start + first, count.min(room) as usize)?;
            if !letters.iter().any(u8::is_ascii_whitespace) {
                return Ok(letters);
            }
            self.form = Form::Lines { letters: 0, place: self.start };
        }
        let mut place = self.place_of(first)?;
        let mut found = Vec::with_capacity(count as usize);
        while (found.len() as u64) < count && place < self.end {
            let window = self.file.read(place, (self.end - place).min(WINDOW) as usize)?;
            let wanted = count as usize - found.len();
            found.extend(window.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).take(wanted));
            place += window.len() as u64;
        }
        Ok(found)
    }

    /// Where a letter of a text with line breaks lies, counted on from the last one asked for.
    fn place_of(&mut self, letter: u64) -> Result<u64> {
        let (mut passed, mut place) = match self.form {
            Form::Lines { letters, place } if letters <= letter => (letters, place),
            _ => (0, self.start),
        };
        while passed < letter && place < self.end {
            let window = self.file.read(place, (self.end - place).min(WINDOW) as usize)?;
            let mut used = 0;
            for byte in &window {
                if passed == letter {
                    break;
                }
                passed += u64::from(!byte.is_ascii_whitespace());
                used += 1;
            }
            place += used;
        }
        self.form = Form::Lines { letters: passed, place };
        Ok(place)
    }
}
