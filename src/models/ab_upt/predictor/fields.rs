//! Predicted fields in physical units.

use std::ops::Range;

use candle_core::{Result, Tensor};

use super::Predictor;
use crate::models::ab_upt::config::DomainConfig;
use crate::models::ab_upt::error::AbUptError;
use crate::ops::first_not_finite;

/// The fields at consecutive points of one domain, in physical units.
#[derive(Debug, Clone)]
pub struct PredictedFields {
    domain: String,
    points: Range<u64>,
    /// `[points, components]` each, f32, in the order of the network.
    fields: Vec<(String, Tensor)>,
}

impl PredictedFields {
    /// Carries what the network returned, `[points, components]` by the name of the field, into physical units, where
    /// it must be finite. `argument` names the points in errors; `first` is the index of the first of them.
    pub(super) fn denormalise(
        predictor: &Predictor,
        domain: &DomainConfig,
        argument: &str,
        first: u64,
        of_network: impl Fn(&str) -> Result<Tensor>,
    ) -> std::result::Result<Self, AbUptError> {
        let (mut fields, mut points) = (Vec::with_capacity(domain.fields.len()), 0);
        for field in &domain.fields {
            let statistics = predictor.statistics().field(&domain.name, &field.name)?;
            let values = statistics.denormalise(&of_network(&field.name)?)?;
            if let Some((index, got)) = first_not_finite(&values)? {
                let (points, field) = (argument.to_string(), field.name.clone());
                let (point, dtype) = (first + (index / statistics.width()) as u64, predictor.model().dtype().as_str());
                return Err(AbUptError::Prediction { points, field, point, got, dtype });
            }
            points = values.dim(0)? as u64;
            fields.push((field.name.clone(), values));
        }
        Ok(Self { domain: domain.name.clone(), points: first..first + points, fields })
    }

    /// The domain.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The places of the points in the whole stream.
    pub fn points(&self) -> Range<u64> {
        self.points.clone()
    }

    /// A field, `[points, components]` in f32 on the device of the network.
    ///
    /// # Errors
    /// The domain has no such field.
    pub fn get(&self, field: &str) -> std::result::Result<&Tensor, AbUptError> {
        let found = self.fields.iter().find(|(name, _)| name == field);
        found.map(|(_, values)| values).ok_or_else(|| AbUptError::UnknownField {
            field: format!("{}_{field}", self.domain),
            known: self.fields.iter().map(|(name, _)| format!("{}_{name}", self.domain)).collect(),
        })
    }

    /// The numbers of a field, point after point.
    ///
    /// # Errors
    /// The domain has no such field; the copy from the device fails.
    pub fn values(&self, field: &str) -> Result<Vec<f32>> {
        self.get(field)?.flatten_all()?.to_vec1()
    }

    /// All fields with their names, in the order of the network.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.fields.iter().map(|(name, values)| (name.as_str(), values))
    }
}
