//! The Metal kernels that tests without a GPU look at.

use candle_mixed_attention::kernels::metal::recipes;
use candle_mixed_attention::kernels::metal::source::Recipe;
use candle_mixed_attention::kernels::metal::tiling::{CANDIDATES, Element, Family, TILINGS, Tiling};

/// Every element type, on every family that uses it.
pub const ELEMENTS: [(Element, &[Family]); 4] = [
    (Element::F16, &[Family::Apple7, Family::Apple9]),
    (Element::Bf16, &[Family::Apple9]),
    (Element::WideBf16, &[Family::Apple7, Family::Apple9]),
    (Element::F32, &[Family::Apple7, Family::Apple9]),
];

/// Every kernel; `mixed_attention` for every tile at its largest head_dim and at an odd one.
pub fn all_recipes() -> Vec<Recipe> {
    let mut all = vec![recipes::sin_cos()];
    for (element, families) in ELEMENTS {
        all.push(recipes::rotate_keys(element));
        all.push(recipes::combine_split_keys(element));
        let of_element = |tiling: &&Tiling| families.iter().any(|&family| tiling.serves(family, element));
        for tiling in TILINGS.iter().chain(&CANDIDATES).filter(of_element) {
            all.push(recipes::mixed_attention(tiling, element, tiling.head_dim));
        }
        for &family in families {
            all.extend(Tiling::of(family, element, 40).map(|tiling| recipes::mixed_attention(tiling, element, 40)));
        }
    }
    all.sort_by_key(|recipe| format!("{recipe:?}"));
    all.dedup();
    all
}
