//! GELU messages between points, summed up on the CPU without a list of them in memory.
//!
//! ```text
//! y[s] = Σ gelu(x[p] + c[s])    over the points p of the list of s;   divided by their number for a mean
//! ```

use std::mem::MaybeUninit;

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};

use super::gelu::gelu_of;
use super::rows::make_rows;
use super::vectorised::vectorised;

/// Which messages are sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Messages<'a> {
    /// The senders, list after list.
    pub points: &'a [u32],
    /// The list of receiver `s` is `points[starts[s]..starts[s + 1]]`.
    pub starts: &'a [usize],
    /// Whether sums are divided by the number of messages, where there are any.
    pub mean: bool,
}

/// Sums up the messages from `senders [points, width]` to `receivers [receivers, width]`, both [plain](super::is_plain).
///
/// # Errors
/// Another number of receivers than lists, other widths, a sender that does not exist.
pub(crate) fn message_sum(senders: &Tensor, receivers: &Tensor, messages: Messages<'_>) -> Result<Tensor> {
    senders.contiguous()?.apply_op2_no_bwd(&receivers.contiguous()?, &messages)
}

impl CustomOp2 for Messages<'_> {
    fn name(&self) -> &'static str {
        "message-sum"
    }

    fn cpu_fwd(
        &self,
        senders: &CpuStorage,
        senders_layout: &Layout,
        receivers: &CpuStorage,
        receivers_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, width) = rows(senders, senders_layout)?;
        let (centres, receiver_width) = rows(receivers, receivers_layout)?;
        let (points, count) = (senders_layout.dims()[0], receivers_layout.dims()[0]);
        if receiver_width != width || self.starts.len() != count + 1 {
            let (lists, from, to) = (self.starts.len(), senders_layout.dims(), receivers_layout.dims());
            bail!("messages from {from:?} to {to:?} need equal widths and a list for each receiver, got {lists} ends");
        }
        if let Some(point) = self.points.iter().find(|&&point| point as usize >= points) {
            bail!("a message comes from point {point} of {points}");
        }
        let messages_per_row = self.points.len() / count.max(1) + 1;
        let fill = |first: usize, block: &mut [MaybeUninit<f32>]| {
            vectorised(Block { messages: *self, x, centres, width, first, block });
        };
        // SAFETY: `Block` writes every number of its block.
        let output = unsafe { make_rows(count, width, messages_per_row * width, fill) };
        Ok((CpuStorage::F32(output), Shape::from((count, width))))
    }
}

/// The numbers of a contiguous matrix and its width.
fn rows<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<(&'a [f32], usize)> {
    match (layout.dims(), layout.contiguous_offsets()) {
        (&[_, width], Some((start, end))) => Ok((&storage.as_slice::<f32>()?[start..end], width)),
        _ => bail!("messages have contiguous ends [points, width], got {layout:?}"),
    }
}

/// Messages that are summed in f32 before they join a sum in f64, so that rounding errors do not grow with the number of
/// messages.
const CHUNK: usize = 64;

/// The receivers of one block, from `first` on; compiled once for every instruction set that [`vectorised`] may find.
struct Block<'a> {
    messages: Messages<'a>,
    x: &'a [f32],
    centres: &'a [f32],
    width: usize,
    first: usize,
    block: &'a mut [MaybeUninit<f32>],
}

impl pulp::NullaryFnOnce for Block<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self { messages, x, centres, width, first, block } = self;
        let (mut sum, mut total) = (vec![0f32; width], vec![0f64; width]);
        for (receiver, y) in (first..).zip(block.chunks_exact_mut(width)) {
            let centre = &centres[receiver * width..][..width];
            let list = &messages.points[messages.starts[receiver]..messages.starts[receiver + 1]];
            total.fill(0.0);
            for list in list.chunks(CHUNK) {
                sum.fill(0.0);
                for &point in list {
                    let sender = &x[point as usize * width..][..width];
                    for ((sum, sender), centre) in sum.iter_mut().zip(sender).zip(centre) {
                        *sum += gelu_of(sender + centre);
                    }
                }
                total.iter_mut().zip(&sum).for_each(|(total, sum)| *total += f64::from(*sum));
            }
            let scale = if messages.mean { 1.0 / list.len().max(1) as f64 } else { 1.0 };
            for (y, total) in y.iter_mut().zip(&total) {
                y.write((total * scale) as f32);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};

    fn random(shape: (usize, usize)) -> Tensor {
        Tensor::randn(0f32, 1., shape, &Device::Cpu).unwrap()
    }

    #[test]
    fn agrees_with_a_list_of_messages() {
        for (width, receivers) in [(1, 1), (5, 3), (16, 40), (33, 700), (192, 300)] {
            let (senders, centres) = (random((50, width)), random((receivers, width)));
            // Lists of 0 to 6 messages.
            let lengths = (0..receivers).map(|receiver| receiver * 5 % 7);
            let starts: Vec<usize> = std::iter::once(0)
                .chain(lengths.scan(0, |end, length| {
                    *end += length;
                    Some(*end)
                }))
                .collect();
            let points: Vec<u32> = (0..starts[receivers] as u32).map(|message| message * 17 % 50).collect();
            for mean in [false, true] {
                let got = message_sum(&senders, &centres, Messages { points: &points, starts: &starts, mean }).unwrap();
                assert_eq!(got.dims(), [receivers, width]);
                for receiver in 0..receivers {
                    let list = &points[starts[receiver]..starts[receiver + 1]];
                    let wide = |tensor: Tensor| tensor.to_dtype(DType::F64).unwrap();
                    let want = if list.is_empty() {
                        Tensor::zeros(width, DType::F64, &Device::Cpu).unwrap()
                    } else {
                        let from = wide(senders.index_select(&Tensor::new(list, &Device::Cpu).unwrap(), 0).unwrap());
                        let messages = from.broadcast_add(&wide(centres.get(receiver).unwrap())).unwrap();
                        let messages = messages.gelu_erf().unwrap();
                        if mean { messages.mean(0).unwrap() } else { messages.sum(0).unwrap() }
                    };
                    let worst = (wide(got.get(receiver).unwrap()) - want).unwrap().abs().unwrap().max_all().unwrap();
                    let worst = worst.to_scalar::<f64>().unwrap();
                    assert!(worst <= 5e-6, "receiver {receiver} of width {width}: off by {worst:e}");
                }
            }
        }
    }

    #[test]
    fn very_many_messages_are_summed_as_exactly_as_few() {
        let (senders, centres) = (random((50, 3)), random((1, 3)));
        let points: Vec<u32> = (0..300_000).map(|message| message * 17 % 50).collect();
        let messages = Messages { points: &points, starts: &[0, points.len()], mean: true };
        let got = message_sum(&senders, &centres, messages).unwrap();
        let wide = |tensor: &Tensor| tensor.to_dtype(DType::F64).unwrap();
        // Every sender comes equally often.
        let want = wide(&senders).broadcast_add(&wide(&centres)).unwrap().gelu_erf().unwrap().mean(0).unwrap();
        let worst = (wide(&got.squeeze(0).unwrap()) - want).unwrap().abs().unwrap().max_all().unwrap();
        let worst = worst.to_scalar::<f64>().unwrap();
        assert!(worst <= 4e-7, "off by {worst:e}");
    }

    #[test]
    fn lists_that_do_not_fit_are_refused() {
        let (senders, centres) = (random((5, 4)), random((2, 4)));
        let refused = |centres: &Tensor, points: &[u32], starts: &[usize], words: &str| {
            let error =
                message_sum(&senders, centres, Messages { points, starts, mean: false }).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        };
        refused(&centres, &[0], &[0, 1], "got 2 ends");
        refused(&random((2, 3)), &[0], &[0, 1, 1], "equal widths");
        refused(&centres, &[5], &[0, 1, 1], "point 5 of 5");
    }
}
