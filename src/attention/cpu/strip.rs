//! The algorithm: online softmax over one tile of keys, for a strip of queries that lie across the vector lanes.
//!
//! Queries are transposed once per work item, so that a vector holds one channel of `LANES` queries. Everything else
//! then reads its operands as they are: a score is a broadcast of one key channel times a vector of queries, an output
//! channel is a broadcast of one value channel times a vector of probabilities. Maximum and sum of the softmax run down
//! the lanes without ever crossing them.
//!
//! ```text
//! Sᵀ[key, query]     =  Σ_c  K[key, c] · Qᵀ[c, query]                    (q carries scale · log₂e)
//! m'  = max(m, max_key Sᵀ);   P = 2^(Sᵀ − m');   l = l · 2^(m − m') + Σ_key P
//! Oᵀ[c, query]       =  Oᵀ · 2^(m − m')  +  Σ_key V[key, c] · P[key, query]
//! ```
//!
//! Both products keep `ROWS × VECTORS` accumulators in registers and load `ROWS` broadcasts and `VECTORS` vectors per
//! step: 11 loads for 24 multiply-adds with AVX-512 (8 × 3), 6 + 2 for 12 with AVX2 (6 × 2). The loads therefore hide
//! behind the multiply-adds, which bound the kernel together with the exponentials (about 16 vector instructions per
//! vector of scores, against `4 · head_dim` multiply-adds per two).

use super::simd::Simd;

/// A tile of keys and values, staged as f32 rows.
#[derive(Clone, Copy)]
pub(super) struct StagedKeys {
    /// `[len rounded up to ROWS, stride]`; rows past `len` hold anything finite.
    pub keys: *const f32,
    /// `[len, stride]`; channels past head_dim are 0.
    pub values: *const f32,
    /// Numbers from one row to the next: head_dim rounded up to `ROWS`.
    pub stride: usize,
    /// Number of keys, at least 1.
    pub len: usize,
    /// Number of channels.
    pub head_dim: usize,
}

/// The state of one strip of `VECTORS · LANES` queries.
#[derive(Clone, Copy)]
pub(super) struct Strip {
    /// Qᵀ `[head_dim, queries]`, scaled by `scale · log₂e`.
    pub queries: *const f32,
    /// Oᵀ `[stride, queries]`.
    pub output: *mut f32,
    /// Running maximum m `[queries]`.
    pub maximum: *mut f32,
    /// Running sum l `[queries]`.
    pub sum: *mut f32,
    /// Room for Sᵀ and P, `[keys of a tile, queries]`.
    pub scores: *mut f32,
}

/// Takes one tile of keys into a strip. `first` says that the strip has seen no key: its output, maximum and sum are
/// then written without being read.
///
/// # Safety
/// The pointers of `keys` and `strip` are valid for the shapes in their documentation, and nothing else writes there.
#[inline(always)]
pub(super) unsafe fn attend<S: Simd, const ROWS: usize, const VECTORS: usize>(
    simd: S,
    keys: &StagedKeys,
    strip: &Strip,
    first: bool,
) {
    // SAFETY: passed on from the caller; both steps stay inside the documented shapes.
    unsafe {
        let tile_maximum = scores::<S, ROWS, VECTORS>(simd, keys, strip);
        let correction = softmax::<S, VECTORS>(simd, keys.len, strip, tile_maximum, first);
        accumulate::<S, ROWS, VECTORS>(simd, keys, strip, correction, first);
    }
}

/// Sᵀ = K Qᵀ; returns the maximum over the keys.
#[inline(always)]
unsafe fn scores<S: Simd, const ROWS: usize, const VECTORS: usize>(
    simd: S,
    keys: &StagedKeys,
    strip: &Strip,
) -> [S::Vector; VECTORS] {
    let width = VECTORS * S::LANES;
    let mut maximum = [simd.splat(f32::NEG_INFINITY); VECTORS];
    let mut key = 0;
    while key < keys.len {
        // SAFETY: `keys` has rows up to a multiple of ROWS, `queries` has head_dim rows of `width` numbers.
        let block = unsafe {
            let rows = keys.keys.add(key * keys.stride);
            product::<S, ROWS, VECTORS>(simd, keys.head_dim, |c, row| *rows.add(row * keys.stride + c), strip.queries)
        };
        let present = (keys.len - key).min(ROWS);
        // SAFETY: `scores` has a row of `width` numbers for each of the `len` keys.
        let target = unsafe { strip.scores.add(key * width) };
        let mut keep = |row: usize| {
            for vector in 0..VECTORS {
                maximum[vector] = simd.max(block[row][vector], maximum[vector]);
                // SAFETY: as for `target`; `row < present`.
                unsafe { simd.store(target.add(row * width + vector * S::LANES), block[row][vector]) };
            }
        };
        if present == ROWS {
            (0..ROWS).for_each(&mut keep);
        } else {
            // Indexing by a variable would move the block to memory.
            (0..ROWS).for_each(|row| {
                if row < present {
                    keep(row)
                }
            });
        }
        key += ROWS;
    }
    maximum
}

/// `ROWS × VECTORS` sums over `count` steps of a broadcast times a vector: `Σ_i left(i, row) · right[i, :]`.
///
/// # Safety
/// `left` may be called for every `i < count` and `row < ROWS`; `right` has `count` rows of `VECTORS · LANES` numbers.
#[inline(always)]
unsafe fn product<S: Simd, const ROWS: usize, const VECTORS: usize>(
    simd: S,
    count: usize,
    left: impl Fn(usize, usize) -> f32,
    right: *const f32,
) -> [[S::Vector; VECTORS]; ROWS] {
    let start = [[simd.splat(0.0); VECTORS]; ROWS];
    // SAFETY: passed on from the caller.
    unsafe { product_onto::<S, ROWS, VECTORS>(simd, start, count, left, right) }
}

/// As [`product`], added to `sums`.
#[inline(always)]
unsafe fn product_onto<S: Simd, const ROWS: usize, const VECTORS: usize>(
    simd: S,
    mut sums: [[S::Vector; VECTORS]; ROWS],
    count: usize,
    left: impl Fn(usize, usize) -> f32,
    right: *const f32,
) -> [[S::Vector; VECTORS]; ROWS] {
    for i in 0..count {
        let vectors: [S::Vector; VECTORS] = std::array::from_fn(|vector| {
            // SAFETY: row `i` of `right` has VECTORS vectors.
            unsafe { simd.load(right.add((i * VECTORS + vector) * S::LANES)) }
        });
        for (row, sums) in sums.iter_mut().enumerate() {
            let broadcast = simd.splat(left(i, row));
            for vector in 0..VECTORS {
                sums[vector] = simd.mul_add(broadcast, vectors[vector], sums[vector]);
            }
        }
    }
    sums
}

/// P = 2^(Sᵀ − m') in place; updates maximum and sum and returns the factor `2^(m − m')` for what was accumulated.
#[inline(always)]
unsafe fn softmax<S: Simd, const VECTORS: usize>(
    simd: S,
    keys: usize,
    strip: &Strip,
    mut maximum: [S::Vector; VECTORS],
    first: bool,
) -> [S::Vector; VECTORS] {
    let mut correction = [simd.splat(1.0); VECTORS];
    let mut sum = [simd.splat(0.0); VECTORS];
    // SAFETY: `maximum` and `sum` hold VECTORS vectors, `scores` that many for each key.
    unsafe {
        for vector in 0..VECTORS {
            let offset = vector * S::LANES;
            if !first {
                let before = simd.load(strip.maximum.add(offset));
                maximum[vector] = simd.max(before, maximum[vector]);
                correction[vector] = simd.exp2(simd.sub(before, maximum[vector]));
                sum[vector] = simd.mul(simd.load(strip.sum.add(offset)), correction[vector]);
            }
            simd.store(strip.maximum.add(offset), maximum[vector]);
        }
        for key in 0..keys {
            for vector in 0..VECTORS {
                let score = strip.scores.add((key * VECTORS + vector) * S::LANES);
                let probability = simd.exp2(simd.sub(simd.load(score), maximum[vector]));
                sum[vector] = simd.add(sum[vector], probability);
                simd.store(score, probability);
            }
        }
        for (vector, sum) in sum.into_iter().enumerate() {
            simd.store(strip.sum.add(vector * S::LANES), sum);
        }
    }
    correction
}

/// Oᵀ = Oᵀ · correction + Vᵀ P.
#[inline(always)]
unsafe fn accumulate<S: Simd, const ROWS: usize, const VECTORS: usize>(
    simd: S,
    keys: &StagedKeys,
    strip: &Strip,
    correction: [S::Vector; VECTORS],
    first: bool,
) {
    let width = VECTORS * S::LANES;
    let mut channel = 0;
    while channel < keys.stride {
        // SAFETY: `output` has `stride` rows, a multiple of ROWS; `values` has `len` rows of `stride` channels.
        unsafe {
            let output = strip.output.add(channel * width);
            let mut sums = [[simd.splat(0.0); VECTORS]; ROWS];
            if !first {
                for (row, sums) in sums.iter_mut().enumerate() {
                    for (vector, sum) in sums.iter_mut().enumerate() {
                        let before = simd.load(output.add(row * width + vector * S::LANES));
                        *sum = simd.mul(before, correction[vector]);
                    }
                }
            }
            let values = keys.values.add(channel);
            let left = |key: usize, row: usize| *values.add(key * keys.stride + row);
            let sums = product_onto::<S, ROWS, VECTORS>(simd, sums, keys.len, left, strip.scores);
            for (row, sums) in sums.iter().enumerate() {
                for (vector, sum) in sums.iter().enumerate() {
                    simd.store(output.add(row * width + vector * S::LANES), *sum);
                }
            }
        }
        channel += ROWS;
    }
}
