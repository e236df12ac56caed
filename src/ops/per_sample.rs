//! Numbers for each channel: the same for all samples, or others for each.

use candle_core::{Layout, Result, Storage, bail};

/// Numbers for each channel, of one sample or of all. Invariant: `data` holds `width` numbers for each sample, or once.
#[derive(Clone, Copy)]
pub(super) struct PerSample<'a> {
    data: &'a [f32],
    width: usize,
}

impl<'a> PerSample<'a> {
    /// Of factors `[width]` or `[batch or 1, 1, width]`, f32.
    pub(super) fn new(storage: &'a Storage, layout: &Layout, batch: usize, width: usize) -> Result<Self> {
        let (Storage::Cpu(storage), Some((start, end))) = (storage, layout.contiguous_offsets()) else {
            bail!("factors for each channel must be contiguous and on the CPU, got {layout:?}");
        };
        match layout.dims() {
            &[channels] | &[1, 1, channels] if channels == width => {}
            &[samples, 1, channels] if samples == batch && channels == width => {}
            dims => bail!("{batch} samples of {width} channels do not take factors of shape {dims:?}"),
        }
        Ok(Self { data: &storage.as_slice::<f32>()?[start..end], width })
    }

    #[inline(always)]
    /// Those of one sample.
    pub(super) fn of(&self, sample: usize) -> &'a [f32] {
        if self.data.len() == self.width { self.data } else { &self.data[sample * self.width..][..self.width] }
    }
}
