//! Padding as the kernels see it: a bit per key token and a class per key tile.

use std::hash::{DefaultHasher, Hash, Hasher};

use super::KeyTile;

/// One bit per token and batch row, set for a real token. Rows are padded to whole 64-bit words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PaddingBits {
    batch: usize,
    tokens: usize,
    words_per_row: usize,
    /// Of the words. In front of them, because it tells most masks apart.
    hash: u64,
    words: Vec<u64>,
}

/// What a kernel has to do with a key tile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum TileClass {
    /// No real token: skip it.
    Empty = 0,
    /// Some real tokens: look at the bits.
    Partial = 1,
    /// Only real tokens: the unmasked loop.
    Full = 2,
}

impl PaddingBits {
    /// Packs a row-major mask `[batch, tokens]`, true for a real token.
    ///
    /// # Panics
    /// A mask that does not fit into memory: `check_shape` tells before.
    pub fn new(batch: usize, tokens: usize, real: impl Fn(usize, usize) -> bool) -> Self {
        let bits = |row, start: usize| {
            let inside = (start..tokens).take(64).enumerate();
            inside.fold(0, |bits, (bit, token)| bits | u64::from(real(row, token)) << bit)
        };
        Self::from_words(batch, tokens, bits)
    }

    /// A mask whose first `lengths[row]` tokens of each row are real.
    ///
    /// # Panics
    /// As [`new`](Self::new).
    pub(crate) fn from_lengths(lengths: &[usize], tokens: usize) -> Self {
        Self::from_words(lengths.len(), tokens, |row, start| match lengths[row].saturating_sub(start) {
            left @ ..64 => (1 << left) - 1,
            _ => u64::MAX,
        })
    }

    /// A mask given word by word: of a row, the bits of the 64 tokens from a start on.
    fn from_words(batch: usize, tokens: usize, word: impl Fn(usize, usize) -> u64) -> Self {
        let words_per_row = tokens.div_ceil(64);
        let mut words = vec![0u64; batch * words_per_row];
        // Rows without tokens have no words, however many they are.
        for (at, bits) in words.iter_mut().enumerate() {
            *bits = word(at / words_per_row, at % words_per_row * 64);
        }
        let mut hasher = DefaultHasher::new();
        words.hash(&mut hasher);
        Self { batch, tokens, words_per_row, hash: hasher.finish(), words }
    }

    /// Whether the bits of so many rows and tokens fit into memory.
    pub(crate) fn check_shape(batch: usize, tokens: usize) -> bool {
        let words = batch.checked_mul(tokens.div_ceil(64));
        words.is_some_and(|words| Vec::<u64>::new().try_reserve_exact(words).is_ok())
    }

    /// Whether every token is real.
    pub(crate) fn is_full(&self) -> bool {
        self.tokens == 0 || (0..self.batch).all(|row| self.count(row, 0, self.tokens) == self.tokens)
    }

    /// Number of batch rows.
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// Number of tokens of a row.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// The words of all rows, [`words_per_row`](Self::words_per_row) each, lowest bit first.
    pub fn words(&self) -> &[u64] {
        &self.words
    }

    /// Number of words of a row.
    pub fn words_per_row(&self) -> usize {
        self.words_per_row
    }

    /// The words of one row; a batch of 1 serves every row.
    fn row(&self, row: usize) -> &[u64] {
        let row = if self.batch == 1 { 0 } else { row };
        &self.words[row * self.words_per_row..(row + 1) * self.words_per_row]
    }

    /// Whether a token is real. A batch of 1 serves every row.
    ///
    /// # Panics
    /// A row or token that is not there.
    pub fn is_real(&self, row: usize, token: usize) -> bool {
        self.row(row)[token / 64] >> (token % 64) & 1 == 1
    }

    /// The bits of tokens `[start, start + len)` of a row, `len` at most 64, lowest bit first.
    ///
    /// # Panics
    /// A row or tokens that are not there.
    pub fn bits(&self, row: usize, start: usize, len: usize) -> u64 {
        if len == 0 {
            return 0;
        }
        let words = self.row(row);
        let (first, shift) = (start / 64, start % 64);
        let low = words[first] >> shift;
        let high = if shift + len > 64 { words[first + 1] << (64 - shift) } else { 0 };
        let mask = if len == 64 { u64::MAX } else { (1 << len) - 1 };
        (low | high) & mask
    }

    /// Number of real tokens in `[start, start + len)` of a row.
    ///
    /// # Panics
    /// A row or tokens that are not there.
    pub fn count(&self, row: usize, start: usize, len: usize) -> usize {
        let words = self.row(row);
        let mut count = 0;
        let mut token = start;
        while token < start + len {
            let bits = (64 - token % 64).min(start + len - token);
            let mask = if bits == 64 { u64::MAX } else { (1 << bits) - 1 };
            count += (words[token / 64] >> (token % 64) & mask).count_ones() as usize;
            token += bits;
        }
        count
    }

    /// The class of a tile of these keys in one row.
    pub fn class(&self, row: usize, tile: &KeyTile) -> TileClass {
        match self.count(row, tile.start as usize, tile.len as usize) {
            0 => TileClass::Empty,
            real if real == tile.len as usize => TileClass::Full,
            _ => TileClass::Partial,
        }
    }

    /// The real tokens of a group of rows, for a cache: tokens `[start, start + len)` of `ranges`, one after another.
    pub(crate) fn gather(&self, ranges: &[(usize, usize)]) -> Self {
        let tokens = ranges.iter().map(|&(_, len)| len).sum();
        let source: Vec<usize> = ranges.iter().flat_map(|&(start, len)| start..start + len).collect();
        Self::new(self.batch, tokens, |row, token| self.is_real(row, source[token]))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Band, KeySource};
    use super::*;

    /// A mask that no word boundary lines up with.
    fn real(row: usize, token: usize) -> bool {
        !(token + 7 * row).is_multiple_of(5)
    }

    #[test]
    fn bits_and_counts_agree_with_the_mask_at_every_offset() {
        let (batch, tokens) = (2, 200);
        let padding = PaddingBits::new(batch, tokens, real);
        for row in 0..batch {
            for start in 0..tokens {
                for len in [0, 1, 3, 63, 64] {
                    let len = len.min(tokens - start);
                    let expected = (0..len).filter(|i| real(row, start + i)).fold(0u64, |bits, i| bits | 1 << i);
                    assert_eq!(padding.bits(row, start, len), expected, "row {row}, {len} tokens from {start}");
                }
                let rest = (start..tokens).filter(|&token| real(row, token)).count();
                assert_eq!(padding.count(row, start, tokens - start), rest);
            }
        }
    }

    #[test]
    fn tiles_are_empty_partial_or_full() {
        let padding = PaddingBits::new(2, 96, |row, token| token >= 64 || row == 1 && token < 40);
        let tile = |start| KeyTile { start, len: 32, source: KeySource::Input, band: Band::ALL };
        let classes = |row| [0, 32, 64].map(|start| padding.class(row, &tile(start)));
        use TileClass::{Empty, Full, Partial};
        assert_eq!(classes(0), [Empty, Empty, Full]);
        assert_eq!(classes(1), [Full, Partial, Full]);
    }

    #[test]
    fn masks_of_the_same_bits_are_equal() {
        let padding = PaddingBits::new(2, 70, real);
        assert_eq!(padding, PaddingBits::new(2, 70, real));
        assert_ne!(padding, PaddingBits::new(2, 70, |row, token| real(row, token) != ((row, token) == (1, 69))));
        // The same words.
        assert_ne!(PaddingBits::new(1, 70, |_, _| false), PaddingBits::new(1, 71, |_, _| false));
    }

    #[test]
    fn lengths_are_masks() {
        let lengths = [0, 1, 63, 64, 65, 128, 130];
        let padding = PaddingBits::from_lengths(&lengths, 130);
        assert_eq!(padding, PaddingBits::new(lengths.len(), 130, |row, token| token < lengths[row]));
    }

    #[test]
    fn rows_without_tokens_cost_nothing() {
        let padding = PaddingBits::new(1 << 62, 0, |_, _| true);
        assert!(padding.words().is_empty() && padding.is_full());
        assert!(!PaddingBits::check_shape(1 << 62, 64) && !PaddingBits::check_shape(1 << 62, 1 << 62));
    }

    #[test]
    fn one_row_serves_every_row() {
        let padding = PaddingBits::new(1, 70, real);
        assert!((0..70).all(|token| padding.is_real(5, token) == real(0, token)));
    }

    #[test]
    fn gathered_groups_keep_their_bits() {
        let padding = PaddingBits::new(2, 100, real);
        let gathered = padding.gather(&[(90, 10), (3, 65)]);
        for row in 0..2 {
            let expected = (90..100).chain(3..68).map(|token| real(row, token));
            assert!(expected.enumerate().all(|(token, expected)| gathered.is_real(row, token) == expected));
        }
    }
}
