//! Colour maps and scales.

use super::canvas::{Colour, mix};

/// A perceptually uniform colour map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Colormap {
    /// From dark blue to yellow, for quantities without a distinguished value (S. van der Walt and N. Smith, CC0).
    Viridis,
    /// From blue over grey to red, for quantities with a distinguished middle (K. Moreland, 2009).
    CoolWarm,
}

/// Seventeen evenly spaced colours.
type Table = [[u8; 3]; 17];

const VIRIDIS: Table = [
    [68, 1, 84],
    [72, 24, 106],
    [71, 45, 123],
    [66, 64, 134],
    [59, 82, 139],
    [51, 99, 141],
    [44, 114, 142],
    [38, 130, 142],
    [33, 145, 140],
    [31, 160, 136],
    [40, 174, 128],
    [63, 188, 115],
    [94, 201, 98],
    [132, 212, 75],
    [173, 220, 48],
    [216, 226, 25],
    [253, 231, 37],
];

const COOL_WARM: Table = [
    [59, 76, 192],
    [78, 104, 216],
    [98, 130, 234],
    [119, 154, 247],
    [141, 176, 254],
    [163, 194, 254],
    [185, 208, 249],
    [204, 217, 237],
    [221, 220, 220],
    [236, 211, 197],
    [245, 196, 172],
    [247, 176, 147],
    [244, 152, 122],
    [235, 125, 98],
    [221, 95, 75],
    [202, 59, 55],
    [180, 4, 38],
];

impl Colormap {
    /// The colour at a place from 0 to 1.
    pub(crate) fn at(self, place: f32) -> Colour {
        let table = match self {
            Self::Viridis => &VIRIDIS,
            Self::CoolWarm => &COOL_WARM,
        };
        let place = place.clamp(0.0, 1.0) * (table.len() - 1) as f32;
        let below = (place as usize).min(table.len() - 2);
        let colour = |at: usize| table[at].map(|channel| f32::from(channel) / 255.0);
        mix(colour(below), colour(below + 1), place - below as f32)
    }
}

/// Which value gets which colour.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Scale {
    /// Value at the lower end.
    pub min: f32,
    /// Value at the upper end.
    pub max: f32,
    /// The colours between.
    pub map: Colormap,
}

impl Scale {
    /// From the smallest to the largest value; values that are not finite do not count.
    pub(crate) fn spanning(values: &[f32], map: Colormap) -> Self {
        let finite = values.iter().filter(|value| value.is_finite());
        let (min, max) =
            finite.fold((f32::INFINITY, f32::NEG_INFINITY), |(min, max), &value| (min.min(value), max.max(value)));
        match (min < max, min.is_finite()) {
            (true, _) => Self { min, max, map },
            (false, true) => Self { min: min - 0.5, max: max + 0.5, map },
            (false, false) => Self { min: 0.0, max: 1.0, map },
        }
    }

    /// Symmetric about 0.
    pub(crate) fn symmetric(values: &[f32], map: Colormap) -> Self {
        let Self { min, max, .. } = Self::spanning(values, map);
        let reach = max.abs().max(min.abs());
        Self { min: -reach, max: reach, map }
    }

    /// The colour of a value; grey for one that is not finite.
    pub(crate) fn colour(&self, value: f32) -> Colour {
        if value.is_finite() { self.map.at((value - self.min) / (self.max - self.min)) } else { [0.6; 3] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ends_have_the_colours_of_the_table() {
        let scale = Scale { min: -1.0, max: 3.0, map: Colormap::Viridis };
        assert_eq!(scale.colour(-7.0), [68.0, 1.0, 84.0].map(|channel: f32| channel / 255.0));
        assert_eq!(scale.colour(3.0), [253.0, 231.0, 37.0].map(|channel: f32| channel / 255.0));
    }

    #[test]
    fn viridis_grows_brighter_all_along() {
        let brightness = |place: f32| {
            let [red, green, blue] = Colormap::Viridis.at(place);
            0.21 * red + 0.72 * green + 0.07 * blue
        };
        assert!((0..100).all(|i| brightness(i as f32 / 100.0) < brightness((i + 1) as f32 / 100.0)));
    }

    #[test]
    fn scales_survive_constant_empty_and_nan_values() {
        for values in [&[2.0, 2.0][..], &[], &[f32::NAN], &[-3.0]] {
            for scale in [Scale::spanning(values, Colormap::Viridis), Scale::symmetric(values, Colormap::Viridis)] {
                assert!(
                    scale.min.is_finite() && scale.max.is_finite() && scale.min < scale.max,
                    "{values:?} {scale:?}"
                );
            }
        }
    }
}
