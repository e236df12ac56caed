//! What predicts the flow in the demo.

use anyhow::Result;

use crate::ellipsoid::Flow;
use crate::output::FieldSpec;

/// A place where fields are predicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlaceKind {
    /// The surface of the body: the surface domain of the model.
    Surface,
    /// The plane y = 0 outside the body: the volume domain of the model.
    Slice,
}

/// Something that knows the flow at any point.
pub trait FlowModel {
    /// What it is, for the titles of pictures.
    fn name(&self) -> &str;

    /// The fields of [`PlaceKind::fields`] at points of a place, in physical units.
    fn predict(&mut self, place: PlaceKind, points: &[[f32; 3]]) -> Result<Vec<Vec<f32>>>;
}

impl PlaceKind {
    /// The name of its files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Surface => "surface",
            Self::Slice => "slice",
        }
    }

    /// The fields there.
    pub fn fields(self) -> Vec<FieldSpec> {
        match self {
            Self::Surface => vec![FieldSpec::new("pressure", 1)],
            Self::Slice => vec![FieldSpec::new("velocity", 3), FieldSpec::new("pressure", 1)],
        }
    }

    /// The same fields of the exact solution.
    pub fn exact(self, flow: &Flow, points: &[[f32; 3]]) -> Vec<Vec<f32>> {
        let points = points.iter().map(|point| point.map(f64::from));
        match self {
            Self::Surface => vec![points.map(|point| flow.surface_pressure(point) as f32).collect()],
            Self::Slice => {
                let at: Vec<_> = points.map(|point| flow.at(point)).collect();
                let velocity = at.iter().flat_map(|at| at.velocity.map(|component| component as f32)).collect();
                vec![velocity, at.iter().map(|at| at.pressure as f32).collect()]
            }
        }
    }
}

/// The exact solution is a model too, the one without error.
impl FlowModel for Flow {
    fn name(&self) -> &str {
        "Exact solution"
    }

    fn predict(&mut self, place: PlaceKind, points: &[[f32; 3]]) -> Result<Vec<Vec<f32>>> {
        Ok(place.exact(self, points))
    }
}
