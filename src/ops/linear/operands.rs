//! What a linear layer reads: rows and a weight with strides, a bias.

use std::borrow::Cow;

use candle_core::{CpuStorage, Layout, Result, Storage, bail};

use crate::element::Element;

/// Rows `[batch, tokens, width]` with adjacent channels. Invariant: `data` holds all of them.
pub(super) struct Rows<'a, T> {
    data: &'a [T],
    pub batch: usize,
    pub tokens: usize,
    pub width: usize,
    batch_stride: usize,
    pub token_stride: usize,
}

impl<'a, T: Element> Rows<'a, T> {
    pub(super) fn new(storage: &'a CpuStorage, layout: &Layout) -> Result<Self> {
        let (&[batch, tokens, width], &[batch_stride, token_stride, channel_stride]) = (layout.dims(), layout.stride())
        else {
            bail!("a linear layer takes [batch, tokens, width], got {:?}", layout.dims());
        };
        let data = from(storage.as_slice::<T>()?, layout.start_offset());
        let last = batch.saturating_sub(1) * batch_stride + tokens.saturating_sub(1) * token_stride + width;
        if channel_stride != 1 || data.len() < last {
            bail!("a linear layer needs adjacent channels inside their storage, got {layout:?}");
        }
        Ok(Self { data, batch, tokens, width, batch_stride, token_stride })
    }

    /// Rows one after another, of one sample.
    pub(super) fn of_block(data: &'a [T], width: usize) -> Self {
        let tokens = data.len() / width;
        Self { data, batch: 1, tokens, width, batch_stride: data.len(), token_stride: width }
    }

    /// The channels of a row, counted over all samples.
    #[inline(always)]
    pub(super) fn row(&self, row: usize) -> &'a [T] {
        let first = row / self.tokens * self.batch_stride + row % self.tokens * self.token_stride;
        &self.data[first..first + self.width]
    }
}

/// A weight `[rows, columns]`, in any strides. Invariant: `data` holds all of it.
pub(super) struct Matrix<'a, T> {
    pub data: &'a [T],
    pub rows: usize,
    pub columns: usize,
    pub row_stride: usize,
    pub column_stride: usize,
}

impl<'a, T: Element> Matrix<'a, T> {
    pub(super) fn new(storage: &'a CpuStorage, layout: &Layout) -> Result<Self> {
        let (&[rows, columns], &[row_stride, column_stride]) = (layout.dims(), layout.stride()) else {
            bail!("the weight of a linear layer has shape [out, in], got {:?}", layout.dims());
        };
        let data = from(storage.as_slice::<T>()?, layout.start_offset());
        let len = rows.saturating_sub(1) * row_stride + columns.saturating_sub(1) * column_stride + 1;
        if rows * columns > 0 && data.len() < len {
            bail!("a weight does not lie inside its storage: {layout:?}");
        }
        Ok(Self { data, rows, columns, row_stride, column_stride })
    }

    /// The numbers of a row, or `None` past the last.
    #[inline(always)]
    pub(super) fn row(&self, row: usize) -> Option<Cow<'a, [T]>> {
        if row >= self.rows {
            return None;
        }
        let start = &self.data[row * self.row_stride..];
        Some(match self.column_stride {
            1 => Cow::Borrowed(&start[..self.columns]),
            stride => Cow::Owned((0..self.columns).map(|column| start[column * stride]).collect()),
        })
    }
}

/// The numbers of a bias in f32.
pub(super) fn bias<T: Element>(storage: &CpuStorage, layout: &Layout) -> Result<Vec<f32>> {
    match layout.contiguous_offsets() {
        Some((start, end)) if layout.dims().len() == 1 => {
            let mut wide = vec![0.0; end - start];
            T::widen(&storage.as_slice::<T>()?[start..end], &mut wide);
            Ok(wide)
        }
        _ => bail!("the bias of a linear layer is a contiguous vector, got {layout:?}"),
    }
}

fn from<T>(data: &[T], start: usize) -> &[T] {
    data.get(start..).unwrap_or_default()
}

pub(super) fn on_cpu(storage: &Storage) -> Result<&CpuStorage> {
    match storage {
        Storage::Cpu(storage) => Ok(storage),
        _ => bail!("the weights of a linear layer on the CPU must be on the CPU"),
    }
}
