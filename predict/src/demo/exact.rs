//! The exact solution as the truth of a place.

use crate::ellipsoid::Flow;
use crate::job::Exact;

/// The exact flow in one of the domains of the network.
pub(super) struct ExactFlow {
    pub flow: Flow,
    pub domain: &'static str,
}

impl Exact for ExactFlow {
    fn at(&self, field: &str, points: &[[f32; 3]]) -> Vec<f32> {
        let points = points.iter().map(|point| point.map(f64::from));
        match (self.domain, field) {
            // On the surface the short form is also the more accurate one.
            (super::SURFACE, _) => points.map(|point| self.flow.surface_pressure(point) as f32).collect(),
            (_, "velocity") => points.flat_map(|point| self.flow.at(point).velocity.map(|x| x as f32)).collect(),
            _ => points.map(|point| self.flow.at(point).pressure as f32).collect(),
        }
    }
}
