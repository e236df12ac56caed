//! Text, from the font that comes with the example.

use ab_glyph::{Font, FontRef, ScaleFont};
use anyhow::{Context, Result};

use super::canvas::{Canvas, Colour};

/// Where a text stands relative to its point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Align {
    Left,
    Centre,
    Right,
}

/// The two weights that figures use.
pub(crate) struct Fonts {
    pub regular: FontRef<'static>,
    pub medium: FontRef<'static>,
}

impl Fonts {
    /// The embedded fonts.
    pub(crate) fn embedded() -> Result<Self> {
        let font = |bytes| FontRef::try_from_slice(bytes).context("the embedded font is damaged");
        Ok(Self {
            regular: font(include_bytes!("../../data/font/Roboto-Regular.ttf"))?,
            medium: font(include_bytes!("../../data/font/Roboto-Medium.ttf"))?,
        })
    }
}

/// Draws one line of text; `at` is a point of its baseline, `size` the height of a line in pixels.
pub(super) fn draw(
    canvas: &mut Canvas,
    font: &FontRef<'static>,
    size: f32,
    at: [f32; 2],
    align: Align,
    colour: Colour,
    text: &str,
) {
    let scaled = font.as_scaled(size);
    let shift = match align {
        Align::Left => 0.0,
        Align::Centre => width(font, size, text) / 2.0,
        Align::Right => width(font, size, text),
    };
    let mut cursor = at[0] - shift;
    let mut previous = None;
    for letter in text.chars() {
        let id = font.glyph_id(letter);
        cursor += previous.map_or(0.0, |previous| scaled.kern(previous, id));
        let glyph = id.with_scale_and_position(size, ab_glyph::point(cursor, at[1]));
        if let Some(outline) = font.outline_glyph(glyph) {
            let bounds = outline.px_bounds();
            outline.draw(|x, y, coverage| {
                let (x, y) = (bounds.min.x as i64 + i64::from(x), bounds.min.y as i64 + i64::from(y));
                canvas.blend(x, y, colour, coverage);
            });
        }
        cursor += scaled.h_advance(id);
        previous = Some(id);
    }
}

/// The width of a text in pixels.
pub(super) fn width(font: &FontRef<'static>, size: f32, text: &str) -> f32 {
    let scaled = font.as_scaled(size);
    let ids: Vec<_> = text.chars().map(|letter| font.glyph_id(letter)).collect();
    let advances: f32 = ids.iter().map(|&id| scaled.h_advance(id)).sum();
    advances + ids.windows(2).map(|pair| scaled.kern(pair[0], pair[1])).sum::<f32>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sign_that_figures_use_is_in_the_font() {
        let fonts = Fonts::embedded().unwrap();
        for font in [&fonts.regular, &fonts.medium] {
            for letter in "ABCxyz0123456789 −+.,()|/=%°±×·αβ∞≤≥–".chars() {
                assert_ne!(font.glyph_id(letter).0, 0, "{letter}");
            }
        }
    }
}
