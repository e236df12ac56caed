//! Sizes that no memory holds.

use candle_core::{DType, Device, Tensor};
use candle_mixed_attention::{KeyPadding, MixedAttention, MixedAttentionConfig, Rope, RopeConfig, wave_numbers};
use candle_nn::{VarBuilder, VarMap};

#[test]
fn widths_and_masks_beyond_measure_are_refused() {
    let vars = VarMap::new();
    let vb = || VarBuilder::from_varmap(&vars, DType::F32, &Device::Cpu);
    for width in [usize::MAX, usize::MAX - 1, 1 << 62, 1 << 40, 1 << 25] {
        let named = |case: &str, error: String, word: &str| assert!(error.contains(word), "{case} of {width}: {error}");
        let rope = Rope::new(&RopeConfig::new(width & !1), &Device::Cpu);
        named("RoPE", rope.unwrap_err().to_string(), "head_dim must be at most 16777216");
        named("wave numbers", wave_numbers(width, 1, 1e4).unwrap_err().to_string(), "head_dim must be at most");
        for heads in [1, width] {
            let attention = MixedAttention::new(&MixedAttentionConfig::new(width, heads), vb());
            named("attention", attention.unwrap_err().to_string(), "hidden_dim must be at most 16777216");
        }
    }
    let attention = MixedAttention::new(&MixedAttentionConfig::new(1 << 24, 1), vb());
    assert!(attention.unwrap_err().to_string().contains("weights that fit into memory"));

    let lengths = [usize::MAX, 1 << 60].map(|tokens| KeyPadding::from_lengths(&[1, 0], tokens));
    for padding in lengths {
        assert!(padding.unwrap_err().to_string().contains("a mask that fits into memory"));
    }
    let rows = Tensor::zeros((1usize << 62, 0), DType::U8, &Device::Cpu).unwrap();
    let padding = KeyPadding::from_mask(&rows).unwrap();
    assert_eq!((padding.batch(), padding.tokens()), (1 << 62, 0));
}
