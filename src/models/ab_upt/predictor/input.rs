//! What is known about a body before its fields are predicted.

use std::collections::BTreeMap;

use candle_core::Tensor;

use super::{Predictor, anchors_of};
use crate::models::ab_upt::error::AbUptError;
use crate::models::ab_upt::geometry::Geometry;
use crate::models::ab_upt::inputs::AbUptInput;

/// Geometry, conditions and anchors of one body in physical units.
///
/// Positions are lists of numbers, point after point, in f32 or f64: `points.as_flattened()` of a `Vec<[f32; 3]>`.
#[derive(Debug, Clone, Default)]
pub struct PredictorInput {
    geometry: Option<BodyGeometry>,
    conditions: Vec<(String, Vec<f64>)>,
    anchors: BTreeMap<String, Vec<f64>>,
}

#[derive(Debug, Clone)]
struct BodyGeometry {
    positions: Vec<f64>,
    supernodes: Vec<u32>,
    features: Option<Tensor>,
}

impl PredictorInput {
    /// Without anything.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the points of the geometry, and the indices of those that are supernodes.
    pub fn geometry<T: Copy + Into<f64>>(mut self, positions: &[T], supernodes: &[u32]) -> Self {
        let (positions, supernodes) = (wide(positions), supernodes.to_vec());
        self.geometry = Some(BodyGeometry { positions, supernodes, features: None });
        self
    }

    /// Sets the points of the geometry with input features `[points, features]`, as the network reads them.
    pub fn geometry_with_features<T: Copy + Into<f64>>(
        mut self,
        positions: &[T],
        supernodes: &[u32],
        features: &Tensor,
    ) -> Self {
        let (positions, supernodes) = (wide(positions), supernodes.to_vec());
        self.geometry = Some(BodyGeometry { positions, supernodes, features: Some(features.clone()) });
        self
    }

    /// Sets a condition; naming one twice is an error of [`encode`](Predictor::encode).
    pub fn condition(mut self, name: impl Into<String>, values: &[f64]) -> Self {
        self.conditions.push((name.into(), values.to_vec()));
        self
    }

    /// Sets the anchors of a domain: points that all others attend to. Naming a domain again replaces them.
    ///
    /// They should lie as in training; [`sample_points`](super::sample_points) draws some from many.
    pub fn anchors<T: Copy + Into<f64>>(mut self, domain: impl Into<String>, positions: &[T]) -> Self {
        self.anchors.insert(domain.into(), wide(positions));
        self
    }

    /// The domains that have anchors.
    pub(super) fn anchor_domains(&self) -> impl Iterator<Item = &str> {
        self.anchors.keys().map(String::as_str)
    }

    /// The same in the units of the network, which checks the rest.
    pub(super) fn normalise(&self, predictor: &Predictor) -> Result<AbUptInput, AbUptError> {
        let (statistics, config) = (predictor.statistics(), predictor.model().config());
        let mut input = AbUptInput::new();
        if let Some(BodyGeometry { positions, supernodes, features }) = &self.geometry {
            let positions = predictor.positions("geometry", 0, positions)?.squeeze(0)?;
            let geometry = Geometry::new(&positions, supernodes)?;
            input = input.geometry(&match features {
                Some(features) => geometry.with_features(features)?,
                None => geometry,
            });
        }
        let conditions = statistics.normalise_conditions(&self.conditions)?;
        let mut start = 0;
        for condition in &config.condition {
            let values = &conditions[start..start + condition.dim];
            start += condition.dim;
            input = input.condition(&condition.name, &Tensor::new(values, predictor.model().device())?);
        }
        for (domain, positions) in &self.anchors {
            let positions = predictor.positions(&anchors_of(domain), 0, positions)?;
            input = input.anchors(domain, &positions);
        }
        Ok(input)
    }
}

fn wide<T: Copy + Into<f64>>(numbers: &[T]) -> Vec<f64> {
    numbers.iter().map(|&number| number.into()).collect()
}
