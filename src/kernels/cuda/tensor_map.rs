//! Tensor maps: what tells the copy engine of Hopper (TMA) where the rows of a tensor are.

use candle_core::Layout;

use super::arguments::RowView;
use super::tiling::{Element, Sm90Tiling};

/// Strides of a tensor map are below this many bytes.
const MAX_STRIDE_BYTES: u64 = 1 << 40;

/// Whether a tensor map can describe rows `[batch, heads, tokens, head_dim]` of this layout, which
/// [`is_readable`](crate::kernels::rows::is_readable) has accepted.
///
/// Coordinates have 32 bits, and only a batch row may be repeated with a stride of 0.
pub fn is_describable(layout: &Layout, element_bytes: usize) -> bool {
    let (&[batch, heads, tokens, _], &[batch_stride, head_stride, token_stride, _]) = (layout.dims(), layout.stride())
    else {
        return false;
    };
    let in_range = |dim: usize| i32::try_from(dim).is_ok();
    let stride =
        |dim: usize, stride: usize| dim <= 1 || (stride as u64).saturating_mul(element_bytes as u64) < MAX_STRIDE_BYTES;
    [batch, heads, tokens].into_iter().all(in_range)
        && stride(batch, batch_stride)
        && stride(heads, head_stride)
        && stride(tokens, token_stride)
        && (heads <= 1 || head_stride > 0)
        && (tokens <= 1 || token_stride > 0)
}

/// What the driver is asked to encode: rows in boxes of 64 channels × 128 tokens, with the swizzle that the kernel
/// expects. Channels and tokens past the end read as zeros. Dimensions are channels, tokens, heads, batch rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TensorMapDescription {
    /// Where the tensor starts.
    pub address: u64,
    /// f16 or bf16.
    pub element: Element,
    /// Elements of each dimension.
    pub sizes: [u64; 4],
    /// Bytes between tokens, heads and batch rows.
    pub strides: [u64; 3],
    /// Elements of a box.
    pub box_sizes: [u32; 4],
}

impl TensorMapDescription {
    /// Bytes of a row of a box in shared memory, over which the hardware swizzles.
    pub const SWIZZLE_BYTES: u32 = 128;

    /// Describes rows `[batch, heads, tokens, head_dim]`; `None` if there are none.
    pub fn new(view: &RowView, shape: [usize; 4], element: Element) -> Option<Self> {
        if view.data == 0 || shape.contains(&0) {
            return None;
        }
        let [batch, heads, tokens, head_dim] = shape.map(|dim| dim as u64);
        // One row that serves the whole batch; the kernel asks for row 0 then.
        let batch = if view.batch_stride == 0 { 1 } else { batch };
        // The stride of a dimension of 1 means nothing, but must be valid.
        let stride = |dim: u64, stride: i64| (if dim == 1 { head_dim } else { stride as u64 }) * element.bytes() as u64;
        Some(Self {
            address: view.data,
            element,
            sizes: [head_dim, tokens, heads, batch],
            strides: [
                stride(tokens, view.token_stride),
                stride(heads, view.head_stride),
                stride(batch, view.batch_stride),
            ],
            box_sizes: [Sm90Tiling::SLAB_CHANNELS as u32, Sm90Tiling::KEYS as u32, 1, 1],
        })
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Shape;

    use super::*;

    fn layout(shape: [usize; 4], stride: [usize; 4]) -> Layout {
        Layout::new(Shape::from(shape.to_vec()), stride.to_vec(), 0)
    }

    #[test]
    fn rows_of_a_fused_projection_are_describable() {
        assert!(is_describable(&layout([2, 3, 1000, 64], [576_000, 64, 576, 1]), 2));
    }

    #[test]
    fn repeated_heads_and_far_rows_are_not() {
        assert!(!is_describable(&layout([1, 3, 1000, 64], [64_000, 0, 64, 1]), 2));
        assert!(is_describable(&layout([4, 3, 1000, 64], [0, 64, 192, 1]), 2));
        assert!(!is_describable(&layout([1, 1, 1 << 32, 64], [0, 0, 64, 1]), 2));
        assert!(!is_describable(&layout([2, 3, 8, 64], [1 << 40, 64, 192, 1]), 2));
        assert!(is_describable(&layout([1, 3, 8, 64], [1 << 40, 64, 192, 1]), 2));
    }

    #[test]
    fn a_row_that_serves_the_batch_is_there_once() {
        let view = RowView { data: 4096, batch_stride: 0, head_stride: 64, token_stride: 192 };
        let map = TensorMapDescription::new(&view, [5, 3, 100, 64], Element::F16).unwrap();
        assert_eq!((map.sizes, map.strides), ([64, 100, 3, 1], [384, 128, 128]));
        assert_eq!(TensorMapDescription::new(&view, [5, 3, 0, 64], Element::F16), None);
    }
}
