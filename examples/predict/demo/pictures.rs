//! The figures of the demo: predicted, exact, and the difference.

use anyhow::Result;

use super::Results;
use crate::ellipsoid::{Case, Slice};
use crate::mesh::Mesh;
use crate::output::FieldSpec;
use crate::picture::{Colormap, Figure, Panel, PlanePanel, Scale, SurfacePanel};

const PRESSURE: &str = "Cp";

/// The surface pressure on the body.
pub fn surface(case: &Case, model: &str, mesh: &Mesh, results: &Results) -> Result<Vec<u8>> {
    let (predicted, exact) = pressure(results);
    let difference = minus(predicted, exact);
    let scale = Scale::symmetric(exact, Colormap::CoolWarm);
    let panel = |title: &str, values, scale, label: &str| {
        let content = SurfacePanel { mesh, values }.into();
        Panel { title: title.to_string(), label: label.to_string(), scale, content }
    };
    let panels = vec![
        panel(model, predicted, scale, PRESSURE),
        panel("Exact potential flow", exact, scale, PRESSURE),
        panel("Difference", &difference, difference_scale(&difference), "ΔCp"),
    ];
    Figure { title: "Pressure coefficient on the surface".into(), subtitle: subtitle(case), panels }.to_png()
}

/// The pressure in the plane y = 0, with streamlines.
pub fn slice(case: &Case, model: &str, slice: &Slice, body: &Mesh, results: &Results) -> Result<Vec<u8>> {
    let (predicted, exact) = pressure(results);
    let velocity = results.pairs().find(|(field, ..)| field.name == "velocity");
    let (predicted_velocity, exact_velocity) = velocity.map_or((&[][..], &[][..]), |(_, ours, exact)| (ours, exact));
    let difference = minus(predicted, exact);
    let scale = Scale::spanning(exact, Colormap::Viridis);
    let panel = |title: &str, values, velocity, scale, label: &str| {
        let plane = PlanePanel {
            size: slice.size,
            half_extent: slice.half_extent,
            grid_index: &slice.grid_index,
            values,
            velocity,
            body: Some(body),
        };
        Panel { title: title.to_string(), label: label.to_string(), scale, content: plane.into() }
    };
    let panels = vec![
        panel(model, predicted, predicted_velocity, scale, PRESSURE),
        panel("Exact potential flow", exact, exact_velocity, scale, PRESSURE),
        panel("Difference", &difference, &[], difference_scale(&difference), "ΔCp"),
    ];
    let title = "Pressure coefficient and streamlines in the plane y = 0".into();
    Figure { title, subtitle: subtitle(case), panels }.to_png()
}

fn pressure(results: &Results) -> (&[f32], &[f32]) {
    let is_pressure = |field: &FieldSpec| field.name == "pressure";
    let pair = results.pairs().find(|(field, ..)| is_pressure(field));
    pair.map_or((&[], &[]), |(_, predicted, exact)| (predicted, exact))
}

fn minus(predicted: &[f32], exact: &[f32]) -> Vec<f32> {
    predicted.iter().zip(exact).map(|(predicted, exact)| predicted - exact).collect()
}

fn difference_scale(difference: &[f32]) -> Scale {
    Scale::symmetric(difference, Colormap::CoolWarm)
}

fn subtitle(case: &Case) -> String {
    let [a, b, c] = case.semi_axes;
    let angle = |degrees: f64| format!("{degrees}°").replace('-', "−");
    let (alpha, beta) = (angle(case.alpha), angle(case.beta));
    format!("Ellipsoid with semi-axes {a}, {b}, {c} · angle of attack α = {alpha}, sideslip β = {beta}")
}
