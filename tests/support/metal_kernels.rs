//! The Metal kernels as text, with the table they come from: what tests without a GPU look at.

#[path = "../../src/attention/metal/recipes.rs"]
pub mod recipes;
#[path = "../../src/metal/source.rs"]
pub mod source;
#[path = "../../src/attention/metal/tuning.rs"]
pub mod tuning;

use source::Recipe;
use tuning::{CANDIDATES, Element, Family, ROWS, Row};

/// Every element type, on every family that uses it.
pub const ELEMENTS: [(Element, &[Family]); 4] = [
    (Element::F16, &[Family::Apple7, Family::Apple9]),
    (Element::Bf16, &[Family::Apple9]),
    (Element::WideBf16, &[Family::Apple7, Family::Apple9]),
    (Element::F32, &[Family::Apple7, Family::Apple9]),
];

/// Sines and cosines.
pub fn waves() -> Recipe {
    Recipe { function: "waves", defines: Vec::new() }
}

/// Every kernel; `mixed_attention` for every row at its largest head_dim and at an odd one.
pub fn all_recipes() -> Vec<Recipe> {
    let mut all = vec![waves()];
    for (element, families) in ELEMENTS {
        all.push(recipes::rotate_keys(element));
        all.push(recipes::combine_split_keys(element));
        let of_element = |row: &&Row| families.iter().any(|&family| row.serves(family, element));
        for row in ROWS.iter().chain(&CANDIDATES).filter(of_element) {
            all.push(recipes::mixed_attention(row, element, row.head_dim));
        }
        for &family in families {
            all.extend(Row::of(family, element, 40).map(|row| recipes::mixed_attention(row, element, 40)));
        }
    }
    all.sort_by_key(|recipe| format!("{recipe:?}"));
    all.dedup();
    all
}
