//! The algorithm: online softmax over one tile of keys, for a strip of queries that lie across the vector lanes.
//!
//! Queries are transposed once per work item, so that a vector holds one channel of `LANES` queries. Everything else
//! then reads its operands as they are: a score is a broadcast of one key channel times a vector of queries, an output
//! channel is a broadcast of one value channel times a vector of probabilities. Maximum and sum of the softmax run down
//! the lanes without ever crossing them.
//!
//! ```text
//! Sᵀ[key, query]  =  b[key]  +  Σ_c  K[key, c] · Qᵀ[c, query]
//! m' = max(m, max_key Sᵀ);   P = 2^(s · (Sᵀ − m') − shift);   l = l · 2^(s · (m − m')) + Σ_key P      (s = scale · log₂e)
//! Oᵀ[c, query]    =  Oᵀ · 2^(s · (m − m'))  +  Σ_key V[key, c] · P[key, query]
//! ```
//!
//! Channels (first product) and keys (second) come in [`words`](crate::simd) of one f32 or two bf16; sums, scores and
//! the softmax are f32. Queries are as they came: s is the factor of differences of scores, so that its rounding counts
//! as little as can be and nothing overflows. The bias b of a key is divided by the scale, so that it counts as a score.
//! `2^shift` is at least the number of keys: sums of values stay below the largest one.
//!
//! The sums of a tile start from zero and join the older ones in the multiply-add that rescales those: rounding errors
//! then grow with the keys of a tile and with the number of tiles, not with their product. [`total`](super::total) does
//! the rest for very many tiles.
//!
//! Both products keep `ROWS × VECTORS` accumulators in registers and load `ROWS` broadcasts and `VECTORS` vectors per
//! step: 11 loads for 24 multiply-adds with AVX-512 (8 × 3), 6 + 2 for 12 with AVX2 (6 × 2). The loads therefore hide
//! behind the multiply-adds, which bound the kernel together with the exponentials (about 16 vector instructions per
//! vector of scores, against `4 · head_dim` multiply-adds per two).

use crate::simd::{Exponent, Simd, Vector, Words, product};

/// A tile of keys and values, staged as rows of words.
#[derive(Clone, Copy)]
pub(super) struct StagedKeys {
    /// `[len rounded up to ROWS, key_words]`, words of channels; rows past `len` hold anything.
    pub keys: *const f32,
    /// `[len]`, what is added to the scores of each key; null: nothing.
    pub bias: *const f32,
    /// Words of a row of `keys` and rows of Qᵀ.
    pub key_words: usize,
    /// `[⌈len / NUMBERS⌉, stride]`, words of keys; channels past head_dim and keys past `len` are 0.
    pub values: *const f32,
    /// Channels of a row of `values`: head_dim rounded up to `ROWS`.
    pub stride: usize,
    /// Number of keys, at least 1.
    pub len: usize,
}

/// The queries of a work item that see a staged key: rows `[first, end)`.
#[derive(Clone, Copy)]
pub(super) struct Seeing {
    pub first: u32,
    pub end: u32,
}

/// The state of one strip of `VECTORS · LANES` queries.
#[derive(Clone, Copy)]
pub(super) struct Strip {
    /// Its first query among those of the item.
    pub first_query: u32,
    /// Qᵀ `[key_words, queries]`, words of channels.
    pub queries: *const f32,
    /// How differences of scores become weights.
    pub exponent: Exponent,
    /// Oᵀ `[stride, queries]`.
    pub output: *mut f32,
    /// Running maximum m `[queries]`.
    pub maximum: *mut f32,
    /// Running sum l `[queries]`.
    pub sum: *mut f32,
    /// Room for Sᵀ, and for P in words of keys: `[len rounded up to NUMBERS, queries]`.
    pub scores: *mut f32,
}

/// Takes one tile of keys into a strip. `seeing` has an entry for each key, or none if all queries see all keys. `first` says that the strip has seen no key: its output, maximum and sum are
/// then written without being read.
///
/// # Safety
/// The pointers of `keys` and `strip` are valid for the shapes in their documentation, and nothing else writes there.
/// `seeing` has at most `keys.len` entries.
#[inline(always)]
pub(super) unsafe fn attend<W: Words, const ROWS: usize, const VECTORS: usize>(
    words: W,
    keys: &StagedKeys,
    strip: &Strip,
    seeing: &[Seeing],
    first: bool,
) {
    // SAFETY: passed on from the caller; all steps stay inside the documented shapes.
    unsafe {
        let mut tile_maximum = scores::<W, ROWS, VECTORS>(words, keys, strip);
        if !seeing.is_empty() {
            tile_maximum = hide::<W, VECTORS>(words, strip, seeing);
        }
        let correction = softmax::<W, VECTORS>(words, keys.len, strip, tile_maximum, first);
        accumulate::<W, ROWS, VECTORS>(words, keys, strip, correction, first);
    }
}

/// Sᵀ = b + K Qᵀ; returns the maximum over the keys.
#[inline(always)]
unsafe fn scores<W: Words, const ROWS: usize, const VECTORS: usize>(
    words: W,
    keys: &StagedKeys,
    strip: &Strip,
) -> [Vector<W>; VECTORS] {
    let simd = words.simd();
    let lanes = <W::Simd as Simd>::LANES;
    let width = VECTORS * lanes;
    let lowest = simd.splat(f32::NEG_INFINITY);
    // Finite, so that a tile whose scores are all −∞ leaves no −∞ − −∞ behind.
    let mut maximum = [simd.splat(f32::MIN); VECTORS];
    let mut key = 0;
    while key < keys.len {
        // SAFETY: `keys` has rows up to a multiple of ROWS, `queries` has `key_words` rows of `width` words.
        let block = unsafe {
            let rows = keys.keys.add(key * keys.key_words);
            let left = |word, row| *rows.add(row * keys.key_words + word);
            product::<W, ROWS, VECTORS>(words, keys.key_words, left, strip.queries)
        };
        let present = (keys.len - key).min(ROWS);
        // A loop over the rows in use would index the block by a variable and move it to memory.
        for (row, block) in block.iter().enumerate() {
            if row >= present.next_multiple_of(W::NUMBERS) {
                break;
            }
            for vector in 0..VECTORS {
                // A word's last key may be missing.
                let mut scores = if row < present { block[vector] } else { lowest };
                if !keys.bias.is_null() && row < present {
                    // SAFETY: there is a bias for each of the `len` keys.
                    scores = simd.add(scores, simd.splat(unsafe { *keys.bias.add(key + row) }));
                }
                maximum[vector] = simd.max(scores, maximum[vector]);
                // SAFETY: `scores` has a row of `width` numbers for each of the `len` keys, rounded up to NUMBERS.
                unsafe { simd.store(strip.scores.add((key + row) * width + vector * lanes), scores) };
            }
        }
        key += ROWS;
    }
    maximum
}

/// Makes the scores of pairs that are not visible −∞; returns the maximum of the others over the keys.
#[inline(always)]
unsafe fn hide<W: Words, const VECTORS: usize>(words: W, strip: &Strip, seeing: &[Seeing]) -> [Vector<W>; VECTORS] {
    let simd = words.simd();
    let lanes = <W::Simd as Simd>::LANES;
    let width = VECTORS * lanes;
    let mut maximum = [simd.splat(f32::MIN); VECTORS];
    for (key, queries) in seeing.iter().enumerate() {
        // SAFETY: `scores` has a row of `width` numbers for each key, and nothing else refers to it.
        let row = unsafe { std::slice::from_raw_parts_mut(strip.scores.add(key * width), width) };
        let inside = |query: u32| (query.saturating_sub(strip.first_query) as usize).min(width);
        row[..inside(queries.first)].fill(f32::NEG_INFINITY);
        row[inside(queries.end)..].fill(f32::NEG_INFINITY);
        for (vector, maximum) in maximum.iter_mut().enumerate() {
            // SAFETY: the row has VECTORS vectors.
            *maximum = simd.max(unsafe { simd.load(row.as_ptr().add(vector * lanes)) }, *maximum);
        }
    }
    maximum
}

/// P = 2^(s · (Sᵀ − m') − shift) over the scores, in words of keys; updates maximum and sum and returns the factor
/// `2^(s · (m − m'))` for what was accumulated.
#[inline(always)]
unsafe fn softmax<W: Words, const VECTORS: usize>(
    words: W,
    keys: usize,
    strip: &Strip,
    mut maximum: [Vector<W>; VECTORS],
    first: bool,
) -> [Vector<W>; VECTORS] {
    let simd = words.simd();
    let lanes = <W::Simd as Simd>::LANES;
    let exponent = strip.exponent;
    let mut correction = [simd.splat(1.0); VECTORS];
    let mut sum = [simd.splat(0.0); VECTORS];
    // SAFETY: `maximum` and `sum` hold VECTORS vectors, `scores` that many for each key, rounded up to NUMBERS. Words are
    // written over scores that were read before.
    unsafe {
        for vector in 0..VECTORS {
            let offset = vector * lanes;
            if !first {
                let before = simd.load(strip.maximum.add(offset));
                maximum[vector] = simd.max(before, maximum[vector]);
                correction[vector] = simd.exp2(simd.sub(before, maximum[vector]), exponent.unshifted());
            }
            simd.store(strip.maximum.add(offset), maximum[vector]);
        }
        for word in 0..keys.div_ceil(W::NUMBERS) {
            for vector in 0..VECTORS {
                let scores = strip.scores.add((word * W::NUMBERS * VECTORS + vector) * lanes);
                let first = words.weight(simd.sub(simd.load(scores), maximum[vector]), exponent);
                sum[vector] = simd.add(sum[vector], first);
                let mut second = first;
                if W::NUMBERS == 2 {
                    let below = simd.load(scores.add(VECTORS * lanes));
                    second = words.weight(simd.sub(below, maximum[vector]), exponent);
                    sum[vector] = simd.add(sum[vector], second);
                }
                simd.store(strip.scores.add((word * VECTORS + vector) * lanes), words.pack(first, second));
            }
        }
        for (vector, mut sum) in sum.into_iter().enumerate() {
            let total = strip.sum.add(vector * lanes);
            if !first {
                sum = simd.mul_add(simd.load(total), correction[vector], sum);
            }
            simd.store(total, sum);
        }
    }
    correction
}

/// Oᵀ = Oᵀ · correction + Vᵀ P.
#[inline(always)]
unsafe fn accumulate<W: Words, const ROWS: usize, const VECTORS: usize>(
    words: W,
    keys: &StagedKeys,
    strip: &Strip,
    correction: [Vector<W>; VECTORS],
    first: bool,
) {
    let simd = words.simd();
    let lanes = <W::Simd as Simd>::LANES;
    let width = VECTORS * lanes;
    let mut channel = 0;
    while channel < keys.stride {
        // SAFETY: `output` has `stride` rows, a multiple of ROWS; `values` has a row of `stride` words for each word of
        // probabilities.
        unsafe {
            let output = strip.output.add(channel * width);
            let values = keys.values.add(channel);
            let left = |word: usize, row: usize| *values.add(word * keys.stride + row);
            let count = keys.len.div_ceil(W::NUMBERS);
            let mut sums = product::<W, ROWS, VECTORS>(words, count, left, strip.scores);
            if !first {
                for (row, sums) in sums.iter_mut().enumerate() {
                    for (vector, sum) in sums.iter_mut().enumerate() {
                        let before = simd.load(output.add(row * width + vector * lanes));
                        *sum = simd.mul_add(before, correction[vector], *sum);
                    }
                }
            }
            for (row, sums) in sums.iter().enumerate() {
                for (vector, sum) in sums.iter().enumerate() {
                    simd.store(output.add(row * width + vector * lanes), *sum);
                }
            }
        }
        channel += ROWS;
    }
}
