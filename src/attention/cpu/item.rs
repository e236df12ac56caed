//! One work item: a tile of queries of one head, taken past all the keys it sees.
//!
//! Keys and values are staged tile by tile as contiguous f32 rows. Staging is where everything irregular ends: key
//! ranges of several groups fill one tile one after another, masked keys are left out (so that padding costs nothing
//! and whatever it holds has no influence), half precision is widened, strides that would collide in the cache are
//! gone. A tile is then used by every strip of the item.

use super::element::Element;
use super::kernel::StripKernel;
use super::rotate::rotate_row;
use super::scratch::Buffer;
use super::simd::Simd;
use super::strip::{StagedKeys, Strip};
use super::view::{RopeView, View};
use crate::plan::{KeyRows, KeySource, PaddingBits, TileClass, TileSchedule, WorkItem};

/// What the work items of a launch share.
pub(super) struct Launch<'a, T> {
    pub schedule: &'a TileSchedule,
    pub queries: View<'a, T>,
    /// Keys, values and padding of the input tokens, unless all keys are cached.
    pub input: Option<Source<'a, T>>,
    /// Keys, values and padding of the cache.
    pub cache: Option<Source<'a, T>>,
    /// Rotation of the queries.
    pub rope: Option<RopeView<'a>>,
    /// Factor of the scores times log₂e.
    pub scale: f32,
    pub head_dim: usize,
}

/// Keys and values of one [`KeySource`].
pub(super) struct Source<'a, T> {
    pub keys: Keys<'a, T>,
    pub values: View<'a, T>,
    pub padding: Option<&'a PaddingBits>,
    /// Whether the batch has one row that serves all.
    pub broadcast: bool,
}

/// Where the keys are read.
pub(super) enum Keys<'a, T> {
    /// As they came: without RoPE, or from a cache.
    Given(View<'a, T>),
    /// From the copy that was rotated at the start of the launch.
    Rotated(View<'a, f32>, &'a KeyRows),
}

/// Receives the result of an item row by row: the row, its channels, running maximum and sum.
///
/// A whole item hands out normalised channels; a part of a split item hands out its accumulator.
pub(super) trait Sink {
    fn write(&mut self, row: usize, channels: &[f32], maximum: f32, sum: f32);
}

/// The parts of a thread's buffer.
struct Tiles<'b> {
    /// Qᵀ of all strips.
    queries: &'b mut [f32],
    /// Oᵀ of all strips.
    output: &'b mut [f32],
    maximum: &'b mut [f32],
    sum: &'b mut [f32],
    scores: &'b mut [f32],
    keys: &'b mut [f32],
    values: &'b mut [f32],
    /// A strip of rows `[queries, channels]`, on the way from or to the transposed form.
    rows: &'b mut [f32],
    /// What the kernel makes of the tile and of the queries, if it packs them.
    packed: &'b mut [f32],
}

/// Sizes of the parts, in numbers.
#[derive(Clone, Copy)]
struct Shape {
    head_dim: usize,
    /// Channels of a staged row: head_dim up to a multiple of the kernel's rows.
    stride: usize,
    /// Channels of a transposed strip: `stride` up to a multiple of the lanes.
    channels: usize,
    /// Queries of an item, up to a multiple of the lanes.
    queries: usize,
    /// Keys of a tile, up to a multiple of the kernel's rows.
    keys: usize,
}

impl Shape {
    fn new<K: StripKernel>(head_dim: usize, queries: usize, keys: usize) -> Self {
        let lanes = <K::Simd as Simd>::LANES;
        let stride = head_dim.next_multiple_of(K::ROWS);
        let channels = stride.next_multiple_of(lanes);
        let (queries, keys) = (queries.next_multiple_of(lanes), keys.next_multiple_of(K::ROWS));
        Self { head_dim, stride, channels, queries, keys }
    }

    fn split<K: StripKernel>(self, buffer: &mut Buffer) -> Tiles<'_> {
        let width = K::VECTORS * <K::Simd as Simd>::LANES;
        // Parts start on cache lines of 16 numbers.
        let line = |len: usize| len.next_multiple_of(16);
        let sizes = [
            line(self.queries * self.channels),
            line(self.queries * self.channels),
            line(self.queries),
            line(self.queries),
            line(self.keys * width),
            line(self.keys * self.stride),
            line(self.keys * self.stride),
            line(width * self.channels),
            line(K::packed_len(self.keys, self.stride, self.queries, self.channels)),
        ];
        let mut rest = buffer.of(sizes.iter().sum());
        let mut take = |len: usize| {
            let (part, after) = std::mem::take(&mut rest).split_at_mut(len);
            rest = after;
            part
        };
        let [queries, output, maximum, sum, scores, keys, values, rows, packed] = sizes.map(&mut take);
        Tiles { queries, output, maximum, sum, scores, keys, values, rows, packed }
    }
}

/// The strips of an item: first query and number of vectors.
#[inline(always)]
fn strips<K: StripKernel>(queries: usize) -> impl Iterator<Item = (usize, usize)> {
    let lanes = <K::Simd as Simd>::LANES;
    let width = K::VECTORS * lanes;
    (0..queries).step_by(width).map(move |first| (first, (queries - first).div_ceil(lanes).min(K::VECTORS)))
}

/// Runs one work item.
#[inline(always)]
pub(super) fn run<K: StripKernel, T: Element>(
    kernel: K,
    launch: &Launch<'_, T>,
    item: &WorkItem,
    buffer: &mut Buffer,
    sink: &mut impl Sink,
) {
    let queries = item.query_len as usize;
    let shape = Shape::new::<K>(launch.head_dim, launch.schedule.tile().queries.min(queries), K::KEYS);
    let mut tiles = shape.split::<K>(buffer);
    stage_queries(kernel, launch, item, shape, &mut tiles);

    let mut staged = 0;
    let mut first = true;
    for tile in &launch.schedule.key_tiles()[item.key_tiles()] {
        let source = match tile.source {
            KeySource::Input => launch.input.as_ref(),
            KeySource::Cache => launch.cache.as_ref(),
        };
        // The arguments were checked against the plan: a source that it names is there.
        let Some(source) = source else { continue };
        let class = source.padding.map_or(TileClass::Full, |bits| bits.class(item.batch as usize, tile));
        if class == TileClass::Empty {
            continue;
        }
        let start = tile.start as usize;
        let first_rotated = match source.keys {
            Keys::Given(_) => 0,
            Keys::Rotated(_, layout) => layout.row_of(start),
        };
        for offset in 0..tile.len as usize {
            let token = start + offset;
            let masked = |bits: &PaddingBits| !bits.is_real(item.batch as usize, token);
            if class == TileClass::Partial && source.padding.is_some_and(masked) {
                continue;
            }
            let at = staged * shape.stride..staged * shape.stride + shape.stride;
            source.stage(item, token, first_rotated + offset, &mut tiles.keys[at.clone()], &mut tiles.values[at]);
            staged += 1;
            if staged == K::KEYS {
                attend(kernel, shape, &mut tiles, queries, staged, first);
                (staged, first) = (0, false);
            }
        }
    }
    if staged > 0 {
        attend(kernel, shape, &mut tiles, queries, staged, first);
        first = false;
    }
    finish(kernel, item, shape, &mut tiles, first, sink);
}

impl<T: Element> Source<'_, T> {
    /// Writes one key and value as f32; channels past head_dim become 0.
    #[inline(always)]
    fn stage(&self, item: &WorkItem, token: usize, rotated: usize, key: &mut [f32], value: &mut [f32]) {
        let batch = if self.broadcast { 0 } else { item.batch as usize };
        let head = item.head as usize;
        let channels = self.values.row(batch, head, token);
        let (value, value_padding) = value.split_at_mut(channels.len());
        T::widen(channels, value);
        value_padding.fill(0.0);
        let (key, key_padding) = key.split_at_mut(channels.len());
        match &self.keys {
            Keys::Given(view) => T::widen(view.row(batch, head, token), key),
            Keys::Rotated(view, _) => key.copy_from_slice(view.row(batch, head, rotated)),
        }
        key_padding.fill(0.0);
    }
}

/// Reads the queries of an item: widens, rotates and scales them, and lays them across the lanes.
#[inline(always)]
fn stage_queries<K: StripKernel, T: Element>(
    kernel: K,
    launch: &Launch<'_, T>,
    item: &WorkItem,
    shape: Shape,
    tiles: &mut Tiles<'_>,
) {
    let lanes = <K::Simd as Simd>::LANES;
    let (batch, head) = (item.batch as usize, item.head as usize);
    let queries = item.query_len as usize;
    for (first, vectors) in strips::<K>(queries) {
        let width = vectors * lanes;
        for row in 0..width {
            let target = &mut tiles.rows[row * shape.channels..(row + 1) * shape.channels];
            if first + row >= queries {
                target.fill(0.0);
                continue;
            }
            let token = item.query_start as usize + first + row;
            let (channels, padding) = target.split_at_mut(shape.head_dim);
            T::widen(launch.queries.row(batch, head, token), channels);
            if let Some(rope) = &launch.rope {
                rotate_row(channels, rope.row(batch, token));
            }
            channels.iter_mut().for_each(|channel| *channel *= launch.scale);
            padding.fill(0.0);
        }
        let target = &mut tiles.queries[first * shape.channels..][..width * shape.channels];
        for row in (0..width).step_by(lanes) {
            for channel in (0..shape.channels).step_by(lanes) {
                let source = &tiles.rows[row * shape.channels + channel..][..(lanes - 1) * shape.channels + lanes];
                let target = &mut target[channel * width + row..][..(lanes - 1) * width + lanes];
                // SAFETY: both slices hold `lanes` rows of `lanes` numbers at these strides.
                unsafe {
                    kernel.simd().transpose(source.as_ptr(), shape.channels, target.as_mut_ptr(), width);
                }
            }
        }
    }
    kernel.pack_queries(tiles.queries, queries, shape.channels, tiles.packed);
}

/// Takes the staged tile past every strip.
#[inline(always)]
fn attend<K: StripKernel>(kernel: K, shape: Shape, tiles: &mut Tiles<'_>, queries: usize, staged: usize, first: bool) {
    let lanes = <K::Simd as Simd>::LANES;
    let keys = StagedKeys {
        keys: tiles.keys.as_ptr(),
        values: tiles.values.as_ptr(),
        stride: shape.stride,
        len: staged,
        head_dim: shape.head_dim,
    };
    let width = K::VECTORS * lanes;
    assert!(
        tiles.keys.len() >= staged.next_multiple_of(K::ROWS) * shape.stride
            && tiles.values.len() >= staged * shape.stride
            && tiles.scores.len() >= staged * width
    );
    for (start, vectors) in strips::<K>(queries) {
        let width = vectors * lanes;
        let transposed = start * shape.channels..(start + width) * shape.channels;
        let strip = Strip {
            queries: tiles.queries[transposed.clone()].as_ptr(),
            output: tiles.output[transposed].as_mut_ptr(),
            maximum: tiles.maximum[start..start + width].as_mut_ptr(),
            sum: tiles.sum[start..start + width].as_mut_ptr(),
            scores: tiles.scores.as_mut_ptr(),
        };
        // SAFETY: the slices above have `channels ≥ stride ≥ head_dim` rows of `width` numbers; the assertion covers
        // keys, values and scores; all are parts of one exclusively borrowed buffer.
        unsafe {
            match vectors {
                1 => kernel.attend::<1>(&keys, &strip, first),
                2 => kernel.attend::<2>(&keys, &strip, first),
                _ => kernel.attend::<3>(&keys, &strip, first),
            }
        }
    }
}

/// Hands the result out as rows. `untouched` says that no key was visible: zeros.
#[inline(always)]
fn finish<K: StripKernel>(
    kernel: K,
    item: &WorkItem,
    shape: Shape,
    tiles: &mut Tiles<'_>,
    untouched: bool,
    sink: &mut impl Sink,
) {
    let simd = kernel.simd();
    let lanes = <K::Simd as Simd>::LANES;
    let queries = item.query_len as usize;
    if untouched {
        let zeros = &mut tiles.rows[..shape.head_dim];
        zeros.fill(0.0);
        (0..queries).for_each(|row| sink.write(row, zeros, f32::NEG_INFINITY, 0.0));
        return;
    }
    let whole = item.partial_slot == WorkItem::WHOLE;
    for (first, vectors) in strips::<K>(queries) {
        let width = vectors * lanes;
        let source = &mut tiles.output[first * shape.channels..(first + width) * shape.channels];
        // Rows past `stride` were never written; they are cut off below.
        source[shape.stride * width..].fill(0.0);
        for row in (0..width).step_by(lanes) {
            for channel in (0..shape.channels).step_by(lanes) {
                let source = &source[channel * width + row..][..(lanes - 1) * width + lanes];
                let target = &mut tiles.rows[row * shape.channels + channel..][..(lanes - 1) * shape.channels + lanes];
                // SAFETY: both slices hold `lanes` rows of `lanes` numbers at these strides.
                unsafe { simd.transpose(source.as_ptr(), width, target.as_mut_ptr(), shape.channels) };
            }
        }
        for row in 0..width.min(queries - first) {
            let channels = &mut tiles.rows[row * shape.channels..][..shape.head_dim];
            let (maximum, sum) = (tiles.maximum[first + row], tiles.sum[first + row]);
            if whole {
                let factor = 1.0 / sum;
                channels.iter_mut().for_each(|channel| *channel *= factor);
            }
            sink.write(first + row, channels, maximum, sum);
        }
    }
}
