//! The forces on the body, predicted and true.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use serde::Serialize;

use super::{Place, Truth};
use crate::forces::{Coefficients, Force, OnSurface, Reference};
use crate::input::Table;
use crate::mesh::Mesh;
use crate::output::FieldSpec;
use crate::terminal::{remark, say};

/// The name of the file.
pub(crate) const FORCES_FILE: &str = "forces.json";

/// The contents of `forces.json`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Forces {
    pub reference: Reference,
    pub predicted: Told,
    /// Where the truth of all fields that make forces is known.
    #[serde(rename = "true", skip_serializing_if = "Option::is_none")]
    pub truth: Option<Told>,
}

/// A force with its coefficients.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Told {
    /// Pressure and shear together.
    pub force: [f64; 3],
    #[serde(flatten)]
    pub parts: Force,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub coefficients: Option<Coefficients>,
    /// The same for each solid of the body, where it has several.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub solids: BTreeMap<String, Told>,
}

impl Told {
    fn new(parts: Force, reference: &Reference) -> Self {
        let force = std::array::from_fn(|i| parts.pressure[i] + parts.shear[i]);
        Self { force, parts, coefficients: reference.coefficients(&parts), solids: BTreeMap::new() }
    }

    fn on(body: &Mesh, values: &OnSurface, reference: &Reference) -> Self {
        let mut whole = Self::new(Force::on(body, values, reference.moment_about, |_| true), reference);
        if body.groups().len() > 1 {
            for (group, name) in body.groups().iter().enumerate() {
                let belongs = |face: usize| body.face_groups().get(face) == Some(&(group as u32));
                let part = Self::new(Force::on(body, values, reference.moment_about, belongs), reference);
                whole.solids.insert(name.clone(), part);
            }
        }
        whole
    }
}

impl Forces {
    /// The forces on a finished place; nothing if it is no wall with faces and a pressure.
    pub(crate) fn on(place: &mut Place, reference: Reference, finished: &Path) -> Result<Option<Self>> {
        let fields = place.fields();
        let Some(pressure) = fields.iter().find(|field| is_pressure(field)) else { return Ok(None) };
        let shear = fields.iter().find(|field| is_shear(field));
        let body = place.source.input.surface().filter(|mesh| place.wall && mesh.faces().next().is_some());
        let Some(body) = body else { return Ok(None) };
        let cells = Place::cells_of_faces(&place.source.input);

        let predicted = |field: &FieldSpec| {
            let mut table = Table::open(&finished.display().to_string(), Some(&field.name))?;
            table.read(0..table.rows())
        };
        let told = |pressure: Vec<f32>, shear: Option<Vec<f32>>| {
            Told::on(
                body,
                &OnSurface { cells, pressure: &pressure, shear: shear.as_deref().unwrap_or_default() },
                &reference,
            )
        };
        let of_network = told(predicted(pressure)?, shear.map(predicted).transpose()?);
        let of_truth = match &mut place.truth {
            Some(truth) => match (whole(truth, pressure, finished)?, shear) {
                (Some(pressure), None) => Some(told(pressure, None)),
                (Some(pressure), Some(shear)) => {
                    whole(truth, shear, finished)?.map(|shear| told(pressure, Some(shear)))
                }
                (None, _) => None,
            },
            None => None,
        };
        Ok(Some(Self { reference, predicted: of_network, truth: of_truth }))
    }

    /// Prints the forces, and warns of a surface that is not closed.
    pub(crate) fn print(&self) {
        if let Some(warning) = self.predicted.parts.warning() {
            remark(format_args!("warning: {warning}"));
        }
        for (name, told) in [("force", Some(&self.predicted)), ("true force", self.truth.as_ref())] {
            let Some(told) = told else { continue };
            let [x, y, z] = told.force;
            say(format_args!("{name:18} {x:.5}, {y:.5}, {z:.5}"));
            if let Some(Coefficients { drag, drag_of_pressure, drag_of_shear, lift, side, .. }) = told.coefficients {
                say(format_args!(
                    "{:18} Cd {drag:.5} (pressure {drag_of_pressure:.5}, shear {drag_of_shear:.5}), Cl {lift:.5}, Cs {side:.5}",
                    ""
                ));
            }
        }
    }
}

/// A true field at all points, if it is known.
fn whole(truth: &mut Truth, field: &FieldSpec, finished: &Path) -> Result<Option<Vec<f32>>> {
    let Some(mut table) = truth.table(&field.name, finished)? else { return Ok(None) };
    let table = table.table();
    table.read(0..table.rows()).map(Some)
}

fn is_pressure(field: &FieldSpec) -> bool {
    let name = field.name.to_lowercase();
    field.components == 1 && (name.contains("pressure") || matches!(name.as_str(), "p" | "cp" | "pmean"))
}

fn is_shear(field: &FieldSpec) -> bool {
    let name = field.name.to_lowercase();
    field.components == 3 && (name.contains("shear") || matches!(name.as_str(), "wss" | "tau"))
}
