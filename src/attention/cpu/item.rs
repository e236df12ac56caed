//! One work item: a tile of queries of one head, taken past all the keys it sees.
//!
//! Keys and values are staged tile by tile as contiguous rows of [`words`](crate::simd). Staging is where everything
//! irregular ends: key ranges of several groups fill one tile one after another, masked keys are left out (so that
//! padding costs nothing and whatever it holds has no influence), strides that would collide in the cache are gone. A
//! tile is then used by every strip of the item.

use super::kernel::StripKernel;
use super::operands::{Keys, Operands};
use super::output::Target;
use super::rotate::rotate_row;
use super::strip::{Seeing, StagedKeys, Strip};
use super::total::{self, Compensated, Total};
use super::visible::{VisibleKeys, visible_keys};
use crate::element::Element;
use crate::plan::WorkItem;
use crate::scratch::Buffer;
use crate::simd::{Exponent, Simd, Words, lay_across};

/// The parts of a thread's buffer.
struct Tiles<'b> {
    /// Qᵀ of all strips, in words of channels.
    queries: &'b mut [f32],
    /// Oᵀ of all strips.
    output: &'b mut [f32],
    maximum: &'b mut [f32],
    sum: &'b mut [f32],
    /// Totals of very many keys, of the sizes of what they sum up; empty otherwise.
    total: TotalParts<'b>,
    scores: &'b mut [f32],
    /// In words of channels.
    keys: &'b mut [f32],
    /// In words of keys.
    values: &'b mut [f32],
    /// What is added to the scores of each key, if anything is.
    bias: &'b mut [f32],
    /// A strip of rows, on the way from or to the transposed form.
    rows: &'b mut [f32],
    /// A query that is rotated.
    rotated: &'b mut [f32],
}

/// The totals of [`total`].
struct TotalParts<'b> {
    maximum: &'b mut [f32],
    sum: [&'b mut [f32]; 2],
    output: [&'b mut [f32]; 2],
}

/// Sizes of the parts, in numbers.
#[derive(Clone, Copy)]
struct Shape {
    head_dim: usize,
    /// Words of a query's or key's channels.
    key_words: usize,
    /// Rows of a strip of Qᵀ: `key_words` up to a multiple of the lanes.
    query_words: usize,
    /// Channels of a value: head_dim up to a multiple of the kernel's rows.
    stride: usize,
    /// Rows of a strip of Oᵀ: `stride` up to a multiple of the lanes.
    channels: usize,
    /// Queries of an item, up to a multiple of the lanes.
    queries: usize,
    /// Whether the item has so many keys that they need a [`total`].
    many_keys: bool,
    /// Whether keys may have biases.
    has_bias: bool,
}

type WordsOf<K> = <K as StripKernel>::Words;

/// Numbers in a vector of a kernel.
const fn lanes<K: StripKernel>() -> usize {
    <<WordsOf<K> as Words>::Simd as Simd>::LANES
}

impl Shape {
    fn new<K: StripKernel>(head_dim: usize, queries: usize, keys: usize, has_bias: bool) -> Self {
        let key_words = head_dim.div_ceil(WordsOf::<K>::NUMBERS);
        let query_words = key_words.next_multiple_of(lanes::<K>());
        let stride = head_dim.next_multiple_of(K::ROWS);
        let channels = stride.next_multiple_of(lanes::<K>());
        let queries = queries.next_multiple_of(lanes::<K>());
        let many_keys = keys > total::TILES * K::KEYS;
        Self { head_dim, key_words, query_words, stride, channels, queries, many_keys, has_bias }
    }

    fn split<K: StripKernel>(self, buffer: &mut Buffer) -> Tiles<'_> {
        let width = K::VECTORS * lanes::<K>();
        // Parts start on cache lines of 16 numbers.
        let line = |len: usize| len.next_multiple_of(16);
        let output = line(self.queries * self.channels);
        let row = line(self.queries);
        let (total_output, total_row) = if self.many_keys { (output, row) } else { (0, 0) };
        let sizes = [
            line(self.queries * self.query_words),
            output,
            row,
            row,
            total_row,
            total_row,
            total_row,
            total_output,
            total_output,
            line(K::KEYS * width),
            line(K::KEYS * self.key_words),
            line(K::KEYS / WordsOf::<K>::NUMBERS * self.stride),
            line(K::KEYS),
            line(width * self.channels.max(self.query_words)),
            line(self.head_dim),
        ];
        let mut rest = buffer.of(sizes.iter().sum());
        let mut take = |len: usize| {
            let (part, after) = std::mem::take(&mut rest).split_at_mut(len);
            rest = after;
            part
        };
        let [queries, output, maximum, sum, t0, t1, t2, t3, t4, scores, keys, values, bias, rows, rotated] =
            sizes.map(&mut take);
        let total = TotalParts { maximum: t0, sum: [t1, t2], output: [t3, t4] };
        Tiles { queries, output, maximum, sum, total, scores, keys, values, bias, rows, rotated }
    }
}

/// The strips of an item: first query and number of vectors.
#[inline(always)]
fn strips<K: StripKernel>(queries: usize) -> impl Iterator<Item = (usize, usize)> {
    crate::simd::strips(queries, lanes::<K>(), K::VECTORS)
}

/// Runs one work item.
#[inline(always)]
pub(super) fn run<K: StripKernel, T: Element>(
    kernel: K,
    operands: &Operands<'_, T>,
    item: &WorkItem,
    buffer: &mut Buffer,
    target: &Target<'_, T>,
) {
    let queries = item.query_len as usize;
    let key_tiles = &operands.schedule.key_tiles()[item.key_tiles()];
    let keys = key_tiles.iter().map(|tile| tile.len as usize).sum();
    let shape = Shape::new::<K>(operands.head_dim, queries, keys, operands.has_bias());
    let mut tiles = shape.split::<K>(buffer);
    stage_queries(kernel, operands, item, shape, &mut tiles);
    tiles.total.clear();

    let mut keys = visible_keys(operands, item, key_tiles);
    let mut coming = keys.next();
    // For each staged key the queries of the item that see it, if not all see all.
    let mut seeing: Vec<Seeing> = Vec::new();
    let mut tiles_taken = 0usize;
    loop {
        seeing.clear();
        let mut staged = 0;
        while staged < K::KEYS
            && let Some(keys_to_come) = &mut coming
        {
            let part = keys_to_come.take(K::KEYS - staged);
            stage_keys(kernel, operands, item, shape, &part, staged, &mut tiles);
            seeing.extend(part.seeing);
            staged += part.tokens.len();
            if keys_to_come.tokens.is_empty() {
                coming = keys.next();
            }
        }
        if staged == 0 {
            break;
        }
        let next = coming.as_ref().map(|keys| Coming::new(keys, operands, item));
        attend(kernel, operands.exponent, shape, &mut tiles, queries, (staged, &seeing), next, tiles_taken == 0);
        tiles_taken += 1;
        if shape.many_keys && tiles_taken.is_multiple_of(total::TILES) {
            add_to_total(kernel, operands.exponent, shape, &mut tiles, queries, false);
        }
    }
    if shape.many_keys && tiles_taken > 0 {
        add_to_total(kernel, operands.exponent, shape, &mut tiles, queries, true);
    }
    finish(kernel, item, shape, &mut tiles, tiles_taken == 0, target);
}

/// Writes keys, their biases and their values to the places of the tile from `first` on.
#[inline(always)]
fn stage_keys<K: StripKernel, T: Element>(
    kernel: K,
    operands: &Operands<'_, T>,
    item: &WorkItem,
    shape: Shape,
    keys: &VisibleKeys<'_, T>,
    first: usize,
    tiles: &mut Tiles<'_>,
) {
    let words = kernel.words();
    let VisibleKeys { source, first_rotated, .. } = keys;
    let (batch, head) = source.batch_and_head(item, operands.group);
    for (index, token) in keys.tokens.clone().enumerate() {
        let staged = first + index;
        if shape.has_bias {
            tiles.bias[staged] = source.bias.map_or(0.0, |bias| bias.of(item, token) / operands.scale);
        }
        let key = &mut tiles.keys[staged * shape.key_words..][..shape.key_words];
        match &source.keys {
            Keys::Given(view) => words.pack_row(view.row(batch, head, token), key),
            Keys::Rotated(view, _) => words.pack_row(view.row(batch, head, first_rotated + index), key),
        }

        let (place, nth) = (staged / WordsOf::<K>::NUMBERS, staged % WordsOf::<K>::NUMBERS);
        let (value, padding) = tiles.values[place * shape.stride..][..shape.stride].split_at_mut(shape.head_dim);
        words.pack_across(nth, source.values.row(batch, head, token), value);
        if !padding.is_empty() {
            padding.fill(0.0);
        }
    }
}

/// Keys that will be staged next. Their rows lie far apart, so that no CPU guesses them: it is told, strip by strip of the
/// tile before.
struct Coming<'k, 'a, T> {
    keys: &'k VisibleKeys<'a, T>,
    batch: usize,
    head: usize,
}

impl<'k, 'a, T: Element> Coming<'k, 'a, T> {
    fn new(keys: &'k VisibleKeys<'a, T>, operands: &Operands<'_, T>, item: &WorkItem) -> Self {
        let (batch, head) = keys.source.batch_and_head(item, operands.group);
        Self { keys, batch, head }
    }

    /// Asks for a part of the rows of the first `most` keys.
    #[inline(always)]
    fn prefetch<S: Simd>(&self, simd: S, most: usize, part: usize, parts: usize) {
        let VisibleKeys { source, tokens, first_rotated, .. } = self.keys;
        let count = tokens.len().min(most);
        for index in count * part / parts..count * (part + 1) / parts {
            let token = tokens.start + index;
            match &source.keys {
                Keys::Given(view) => view.prefetch(simd, self.batch, self.head, token),
                Keys::Rotated(view, _) => view.prefetch(simd, self.batch, self.head, first_rotated + index),
            }
            source.values.prefetch(simd, self.batch, self.head, token);
        }
    }
}

/// Reads the queries of an item, rotates them, and lays them across the lanes.
#[inline(always)]
fn stage_queries<K: StripKernel, T: Element>(
    kernel: K,
    operands: &Operands<'_, T>,
    item: &WorkItem,
    shape: Shape,
    tiles: &mut Tiles<'_>,
) {
    let (words, lanes) = (kernel.words(), lanes::<K>());
    let (batch, head) = (item.batch as usize, item.head as usize);
    let queries = item.query_len as usize;
    for (first, vectors) in strips::<K>(queries) {
        let width = vectors * lanes;
        for row in 0..width {
            let target = &mut tiles.rows[row * shape.query_words..][..shape.key_words];
            if first + row >= queries {
                target.fill(0.0);
                continue;
            }
            let token = item.query_start as usize + first + row;
            let channels = operands.queries.row(batch, head, token);
            match &operands.rope {
                None => words.pack_row(channels, target),
                Some(rope) => {
                    let rotated = &mut tiles.rotated[..shape.head_dim];
                    T::widen(channels, rotated);
                    rotate_row(rotated, rope.row(batch, token));
                    words.pack_row(rotated, target);
                }
            }
        }
        let target = &mut tiles.queries[first * shape.query_words..][..width * shape.query_words];
        lay_across(words.simd(), tiles.rows, shape.query_words, width, target);
    }
}

/// Takes the staged tile past every strip, and meanwhile asks for the keys that are `coming`. `seeing` has an entry for each
/// staged key, or none if all queries see all keys.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "the state of an item and one step of it")]
fn attend<K: StripKernel, T: Element>(
    kernel: K,
    exponent: Exponent,
    shape: Shape,
    tiles: &mut Tiles<'_>,
    queries: usize,
    (staged, seeing): (usize, &[Seeing]),
    coming: Option<Coming<'_, '_, T>>,
    first: bool,
) {
    // A key that all queries see, as most are behind the ends of a window, has nothing to hide.
    let all = |keys: &Seeing| keys.first == 0 && keys.end as usize == queries;
    let seeing = if seeing.iter().all(all) { &[] } else { seeing };
    assert!(seeing.is_empty() || seeing.len() == staged);
    let keys = StagedKeys {
        keys: tiles.keys.as_ptr(),
        bias: if shape.has_bias { tiles.bias.as_ptr() } else { std::ptr::null() },
        key_words: shape.key_words,
        values: tiles.values.as_ptr(),
        stride: shape.stride,
        len: staged,
    };
    let numbers = WordsOf::<K>::NUMBERS;
    assert!(
        tiles.keys.len() >= staged.next_multiple_of(K::ROWS) * shape.key_words
            && tiles.bias.len() >= staged
            && tiles.values.len() >= staged.div_ceil(numbers) * shape.stride
            && tiles.scores.len() >= staged.next_multiple_of(numbers) * K::VECTORS * lanes::<K>()
    );
    let strip_count = strips::<K>(queries).count();
    for (index, (start, vectors)) in strips::<K>(queries).enumerate() {
        if let Some(coming) = &coming {
            coming.prefetch(kernel.words().simd(), K::KEYS, index, strip_count);
        }
        let width = vectors * lanes::<K>();
        let row = start as u32..(start + width) as u32;
        // What a strip has summed stays as it is where it sees nothing.
        let sees = |keys: &Seeing| keys.first < row.end && keys.end > row.start;
        if !first && !seeing.is_empty() && !seeing.iter().any(sees) {
            continue;
        }
        let strip = Strip {
            first_query: start as u32,
            queries: tiles.queries[start * shape.query_words..][..width * shape.query_words].as_ptr(),
            exponent,
            output: tiles.output[start * shape.channels..][..width * shape.channels].as_mut_ptr(),
            maximum: tiles.maximum[start..start + width].as_mut_ptr(),
            sum: tiles.sum[start..start + width].as_mut_ptr(),
            scores: tiles.scores.as_mut_ptr(),
        };
        // SAFETY: the slices above have `query_words ≥ key_words` and `channels ≥ stride` rows of `width` numbers; the
        // assertion covers keys, bias, values and scores; all are parts of one exclusively borrowed buffer.
        unsafe {
            match vectors {
                1 => kernel.attend::<1>(&keys, &strip, seeing, first),
                2 => kernel.attend::<2>(&keys, &strip, seeing, first),
                _ => kernel.attend::<3>(&keys, &strip, seeing, first),
            }
        }
    }
}

impl TotalParts<'_> {
    fn clear(&mut self) {
        self.maximum.fill(f32::MIN);
        self.sum.iter_mut().chain(&mut self.output).for_each(|part| part.fill(0.0));
    }
}

/// Moves what every strip has accumulated into its total; at the end, puts the total in its place.
#[inline(always)]
fn add_to_total<K: StripKernel>(
    kernel: K,
    exponent: Exponent,
    shape: Shape,
    tiles: &mut Tiles<'_>,
    queries: usize,
    at_the_end: bool,
) {
    let simd = kernel.words().simd();
    let [sum_high, sum_low] = &mut tiles.total.sum;
    let [output_high, output_low] = &mut tiles.total.output;
    for (start, vectors) in strips::<K>(queries) {
        let width = vectors * lanes::<K>();
        let row = start..start + width;
        let block = start * shape.channels..(start + width) * shape.channels;
        let total = Total {
            maximum: tiles.maximum[row.clone()].as_ptr(),
            total_maximum: tiles.total.maximum[row.clone()].as_mut_ptr(),
            sum: Compensated {
                running: tiles.sum[row.clone()].as_mut_ptr(),
                high: sum_high[row.clone()].as_mut_ptr(),
                low: sum_low[row].as_mut_ptr(),
            },
            output: Compensated {
                running: tiles.output[block.clone()].as_mut_ptr(),
                high: output_high[block.clone()].as_mut_ptr(),
                low: output_low[block].as_mut_ptr(),
            },
            vectors,
            channels: shape.stride,
        };
        // SAFETY: the slices above have rows of `width` queries, those of the output `channels ≥ stride` of them; all are
        // parts of one exclusively borrowed buffer.
        unsafe {
            total.add(simd, exponent);
            if at_the_end {
                total.finish(simd);
            }
        }
    }
}

/// Hands the result out as rows. `untouched` says that no key was visible: zeros.
#[inline(always)]
fn finish<K: StripKernel, T: Element>(
    kernel: K,
    item: &WorkItem,
    shape: Shape,
    tiles: &mut Tiles<'_>,
    untouched: bool,
    target: &Target<'_, T>,
) {
    let (simd, lanes) = (kernel.words().simd(), lanes::<K>());
    let queries = item.query_len as usize;
    if untouched {
        let zeros = &mut tiles.rows[..shape.head_dim];
        zeros.fill(0.0);
        (0..queries).for_each(|row| target.write(item, row, zeros, f32::NEG_INFINITY, 0.0));
        return;
    }
    for (first, vectors) in strips::<K>(queries) {
        let width = vectors * lanes;
        let source = &mut tiles.output[first * shape.channels..(first + width) * shape.channels];
        // Rows past `stride` were never written; they are cut off below.
        source[shape.stride * width..].fill(0.0);
        for row in (0..width).step_by(lanes) {
            for channel in (0..shape.channels).step_by(lanes) {
                let source = &source[channel * width + row..][..(lanes - 1) * width + lanes];
                let rows = &mut tiles.rows[row * shape.channels + channel..][..(lanes - 1) * shape.channels + lanes];
                // SAFETY: both slices hold `lanes` rows of `lanes` numbers at these strides.
                unsafe { simd.transpose(source.as_ptr(), width, rows.as_mut_ptr(), shape.channels) };
            }
        }
        for row in 0..width.min(queries - first) {
            let channels = &tiles.rows[row * shape.channels..][..shape.head_dim];
            target.write(item, first + row, channels, tiles.maximum[first + row], tiles.sum[first + row]);
        }
    }
}
