//! The trained network that comes with the program.

use anyhow::{Context, Result};
use candle_mixed_attention::candle_core::{DType, Device};
use candle_mixed_attention::models::Normalisation;
use candle_mixed_attention::models::ab_upt::{AbUpt, AbUptConfig, Predictor, PredictorInput};
use candle_nn::VarBuilder;
use serde::Deserialize;

use super::{SURFACE, VOLUME};
use crate::ellipsoid::{Case, sample_surface, sample_volume};

// A constant would be in the program once for each use.
static WEIGHTS: &[u8] = include_bytes!("../../data/ellipsoid.safetensors");
static DESCRIPTION: &str = include_str!("../../data/ellipsoid.json");

/// The files of the network: its weights and its description.
pub(crate) static FILES: [(&str, &[u8]); 2] =
    [("ellipsoid.safetensors", WEIGHTS), ("ellipsoid.json", DESCRIPTION.as_bytes())];

/// Points that describe the body, and supernodes among them: the middle of what the network has seen.
const GEOMETRY_POINTS: usize = 768;
const SUPERNODES: usize = 96;

/// Anchors per domain that the network has seen.
const TRAINED_ANCHORS: std::ops::RangeInclusive<usize> = 256..=MOST_TRAINED_ANCHORS;
pub(super) const MOST_TRAINED_ANCHORS: usize = 1024;

/// What of `ellipsoid.json` a prediction needs.
#[derive(Deserialize)]
struct Description {
    model: AbUptConfig,
    normalisation: Normalisation,
}

/// The embedded network with its statistics.
pub(crate) fn predictor(dtype: DType, device: &Device) -> Result<Predictor> {
    let description: Description = serde_json::from_str(DESCRIPTION).context("the embedded description")?;
    let weights = VarBuilder::from_slice_safetensors(WEIGHTS, dtype, device).context("the embedded weights")?;
    Ok(Predictor::new(AbUpt::new(&description.model, weights)?, &description.normalisation)?)
}

/// A body by random points of its surface, and anchors on it and in the flow around it.
pub(super) fn input(case: &Case, anchors: usize, seed: u64) -> PredictorInput {
    let Case { semi_axes, alpha, beta } = *case;
    let supernodes: Vec<u32> = (0..SUPERNODES as u32).collect();
    PredictorInput::new()
        .geometry(sample_surface(semi_axes, GEOMETRY_POINTS, seed).as_flattened(), &supernodes)
        .condition("alpha", &[alpha])
        .condition("beta", &[beta])
        .anchors(SURFACE, sample_surface(semi_axes, anchors, seed.wrapping_add(1)).as_flattened())
        .anchors(VOLUME, sample_volume(semi_axes, anchors, seed.wrapping_add(2)).as_flattened())
}

/// What lies outside the range that the network was trained on, and what it costs.
pub(super) fn warning(anchors: usize) -> Option<String> {
    let (least, most) = (TRAINED_ANCHORS.start(), TRAINED_ANCHORS.end());
    if TRAINED_ANCHORS.contains(&anchors) {
        return None;
    }
    // Every anchor attends to all anchors, every other point too.
    let cost = match anchors as f64 / *most as f64 {
        times if times > 1.0 => format!(
            ", and attention costs {:.0} times as much as with {most} while the body is read, {times:.0} times at each \
             point",
            times * times
        ),
        _ => String::new(),
    };
    Some(format!("{anchors} anchors are outside the trained range {least} to {most}{cost}"))
}
