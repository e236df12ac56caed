//! The bytes of one array as they were before they were compressed.

use std::ops::Range;

use anyhow::{Context, Result, ensure};

use super::header::{Codec, Header};
use super::stream::Stream;

/// Words in front of the sizes of blocks: their number, the size of each but the last, the size of the last.
const BLOCK_HEADER: u64 = 3;

/// An array behind its header.
pub(super) struct Payload {
    stream: Stream,
    length: u64,
    form: Form,
}

enum Form {
    Plain {
        /// Where the bytes begin in the stream.
        start: u64,
    },
    Blocks {
        codec: Codec,
        /// Bytes of every block but the last.
        size: u64,
        /// End of every compressed block in the stream.
        ends: Vec<u64>,
        /// The block that was unpacked last.
        held: Option<(usize, Vec<u8>)>,
    },
}

impl Payload {
    /// Reads the header of an array.
    pub(super) fn open(mut stream: Stream, header: &Header) -> Result<Self> {
        let word = header.word as u64;
        let Some(codec) = header.codec else {
            let length = header.word(&stream.read(0, header.word)?);
            // Some programs encode the length by itself, VTK together with the numbers.
            if stream.is_padded_after(word)? && length > 0 {
                let stream = stream.behind_header(word)?;
                return Self { stream, length, form: Form::Plain { start: 0 } }.within();
            }
            return Self { stream, length, form: Form::Plain { start: word } }.within();
        };
        let count = header.word(&stream.read(0, header.word)?);
        if count == 0 {
            return Ok(Self { stream, length: 0, form: Form::Plain { start: 0 } });
        }
        let header_length = count.checked_add(BLOCK_HEADER).and_then(|words| words.checked_mul(word));
        let header_length = header_length.filter(|&length| stream.can_hold(length));
        let header_length = header_length.with_context(|| format!("truncated: there is no room for {count} blocks"))?;
        let words = stream.read(0, usize::try_from(header_length)?)?;
        let mut words = words.chunks_exact(header.word).skip(1).map(|bytes| header.word(bytes));
        let (size, last) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        ensure!(size > 0 && last <= size, "blocks of {size} bytes cannot end with one of {last}");
        let length =
            (count - 1).checked_mul(size).and_then(|full| full.checked_add(if last == 0 { size } else { last }));
        let length = length.with_context(|| format!("{count} blocks of {size} bytes are more than a file can hold"))?;
        let mut ends = Vec::with_capacity(count as usize);
        let mut end = 0u64;
        for packed in words {
            end = end.checked_add(packed).context("its blocks are larger than the file")?;
            ends.push(end);
        }
        let stream = stream.behind_header(header_length)?;
        ensure!(stream.can_hold(end), "truncated: its {count} blocks have {end} bytes, which are not all there");
        Ok(Self { stream, length, form: Form::Blocks { codec, size, ends, held: None } })
    }

    /// Checks that the stream holds all of it.
    fn within(self) -> Result<Self> {
        let Form::Plain { start } = self.form else { return Ok(self) };
        let whole = start.checked_add(self.length).is_some_and(|end| self.stream.can_hold(end));
        ensure!(whole, "truncated: its {} bytes are not all there", self.length);
        Ok(self)
    }

    /// Bytes in all.
    pub(super) fn len(&self) -> u64 {
        self.length
    }

    /// Closes the file until the next read.
    pub(super) fn close(&self) {
        self.stream.file().close();
    }

    /// Some of the bytes, which must be below [`len`](Self::len).
    pub(super) fn read(&mut self, range: Range<u64>) -> Result<Vec<u8>> {
        let length = usize::try_from(range.end - range.start)?;
        let (codec, size, ends, held) = match &mut self.form {
            Form::Plain { start } => return self.stream.read(*start + range.start, length),
            Form::Blocks { codec, size, ends, held } => (*codec, *size, ends, held),
        };
        let (mut bytes, mut at) = (Vec::with_capacity(length), range.start);
        while at < range.end {
            let block = usize::try_from(at / size)?;
            if held.as_ref().is_none_or(|(number, _)| *number != block) {
                let start = block.checked_sub(1).map_or(0, |before| ends[before]);
                let packed = self.stream.read(start, usize::try_from(ends[block] - start)?)?;
                let unpacked = size.min(self.length - block as u64 * size);
                let unpacked = codec.unpack(&packed, unpacked).with_context(|| format!("block {block}"))?;
                *held = Some((block, unpacked));
            }
            let Some((_, unpacked)) = held else { continue };
            let from = (at - block as u64 * size) as usize;
            let to = unpacked.len().min(from + (range.end - at) as usize);
            bytes.extend_from_slice(&unpacked[from..to]);
            at += (to - from) as u64;
        }
        Ok(bytes)
    }
}
