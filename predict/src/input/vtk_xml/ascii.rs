//! Numbers written out, read at any place.

use std::ops::Range;
use std::str::FromStr;

use anyhow::{Context, Result, bail};

use super::file::SharedFile;

/// Text that is read at once.
const WINDOW: u64 = 1 << 18;

/// Numbers between two marks.
const MARK_EVERY: u64 = 1 << 15;

/// The numbers of a text. Where every so-many-th begins is remembered once it was passed, so that going back is cheap.
pub(super) struct Text {
    file: SharedFile,
    end: u64,
    /// Where number `MARK_EVERY` · n begins, or the blanks before it.
    marks: Vec<u64>,
    /// A number, and where it or the blanks before it begin: the end of what was read last.
    next: (u64, u64),
}

impl Text {
    /// Numbers between two places of a file.
    pub(super) fn new(file: SharedFile, range: Range<u64>) -> Self {
        Self { file, end: range.end, marks: vec![range.start], next: (0, range.start) }
    }

    /// Closes the file until the next read.
    pub(super) fn close(&self) {
        self.file.close();
    }

    /// How many words stand between the blanks.
    pub(crate) fn count(&self) -> Result<u64> {
        let (mut words, mut in_word, mut place) = (0, false, self.marks[0]);
        while place < self.end {
            let window = self.file.read(place, (self.end - place).min(WINDOW) as usize)?;
            for byte in &window {
                let blank = byte.is_ascii_whitespace();
                words += u64::from(!blank && !in_word);
                in_word = !blank;
            }
            place += window.len() as u64;
        }
        Ok(words)
    }

    /// Some of the numbers.
    pub(super) fn read<T: FromStr>(&mut self, range: Range<u64>) -> Result<Vec<T>> {
        let (mut number, mut place) = self.next;
        let mark = (range.start / MARK_EVERY).min(self.marks.len() as u64 - 1);
        if number > range.start || mark * MARK_EVERY > number {
            (number, place) = (mark * MARK_EVERY, self.marks[mark as usize]);
        }
        let mut numbers = Vec::new();
        while number < range.end {
            let window = self.file.read(place, (self.end - place).min(WINDOW) as usize)?;
            let at_end = place + window.len() as u64 == self.end;
            let mut used = 0;
            loop {
                let blanks = window[used..].iter().take_while(|byte| byte.is_ascii_whitespace()).count();
                let length = window[used + blanks..].iter().take_while(|byte| !byte.is_ascii_whitespace()).count();
                let end = used + blanks + length;
                // What touches the end of the window may go on behind it.
                if length == 0 || (end == window.len() && !at_end) || number == range.end {
                    break;
                }
                if number == self.marks.len() as u64 * MARK_EVERY {
                    self.marks.push(place + used as u64);
                }
                if number >= range.start {
                    numbers.push(parse(&window[used + blanks..end]).with_context(|| format!("number {number}"))?);
                }
                number += 1;
                used = end;
            }
            if number < range.end && at_end {
                bail!("ends early: expected {} numbers, got {number}", range.end);
            }
            if used == 0 && !window.iter().all(u8::is_ascii_whitespace) {
                bail!("number {number} is more than {WINDOW} characters long");
            }
            place += if used == 0 { window.len() as u64 } else { used as u64 };
        }
        self.next = (number, place);
        Ok(numbers)
    }
}

fn parse<T: FromStr>(token: &[u8]) -> Result<T> {
    let text = str::from_utf8(token).ok();
    let number = text.and_then(|text| text.parse().ok());
    let shown = || String::from_utf8_lossy(&token[..token.len().min(40)]).into_owned();
    number.with_context(|| format!("expected {}, got '{}'", std::any::type_name::<T>(), shown()))
}
