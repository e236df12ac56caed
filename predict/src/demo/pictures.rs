//! The figures of the demo: predicted, exact, and the difference.

use anyhow::Result;

use super::Results;
use crate::ellipsoid::{Case, Slice};
use crate::mesh::Mesh;
use crate::metrics::Metrics;
use crate::picture::{Colormap, CutPlane, Figure, Panel, PlanePanel, Scale, SurfacePanel};

const PRESSURE: &str = "Cp";

/// The plane of the slice.
const MIDDLE: CutPlane = CutPlane { axis: 1, value: 0.0 };

/// The predicted pressure, on the body and in the plane y = 0: the whole demo at a glance.
pub fn overview(
    case: &Case,
    model: &str,
    (body, on_surface): (&Mesh, &Results),
    (slice, on_slice): (&Slice, &Results),
    metrics: &Metrics,
) -> Result<Vec<u8>> {
    let (pressure_on_surface, pressure_on_slice) = (pressure(on_surface).0, pressure(on_slice).0);
    let around = PlanePanel {
        plane: MIDDLE,
        size: slice.size,
        centre: [0.0; 2],
        half_extent: slice.half_extent,
        grid_index: &slice.grid_index,
        values: pressure_on_slice,
        velocity: velocity(on_slice).0,
        body: Some(body),
    };
    let percent = |field: &str| metrics.get(field).map_or(f64::NAN, |error| 100.0 * error.relative_l2);
    let errors = |fields: &[(&str, &str)]| {
        let each = fields.iter().map(|(name, field)| format!("{name} {:.1} %", percent(field)));
        format!("relative L2 error: {}", each.collect::<Vec<_>>().join(", "))
    };
    let panels = vec![
        Panel {
            title: "On the surface".into(),
            note: errors(&[("pressure", "surface_pressure")]),
            label: PRESSURE.into(),
            scale: Scale::symmetric(pressure_on_surface, Colormap::CoolWarm),
            content: SurfacePanel { mesh: body, values: pressure_on_surface }.into(),
        },
        Panel {
            title: "In the plane y = 0, with streamlines".into(),
            note: errors(&[("pressure", "slice_pressure"), ("velocity", "slice_velocity")]),
            label: PRESSURE.into(),
            scale: Scale::spanning(pressure_on_slice, Colormap::Viridis),
            content: around.into(),
        },
    ];
    let title = format!("Pressure coefficient around an ellipsoid, predicted by {model}");
    Figure { title, subtitle: subtitle(case), panels }.to_png()
}

/// The surface pressure on the body.
pub fn surface(case: &Case, model: &str, mesh: &Mesh, results: &Results) -> Result<Vec<u8>> {
    let (predicted, exact) = pressure(results);
    let difference = minus(predicted, exact);
    let scale = Scale::symmetric(exact, Colormap::CoolWarm);
    let panel = |title: &str, values, scale, label: &str| {
        let content = SurfacePanel { mesh, values }.into();
        Panel { title: title.to_string(), note: String::new(), label: label.to_string(), scale, content }
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
    let (predicted_velocity, exact_velocity) = velocity(results);
    let difference = minus(predicted, exact);
    let scale = Scale::spanning(exact, Colormap::Viridis);
    let panel = |title: &str, values, velocity, scale, label: &str| {
        let plane = PlanePanel {
            plane: MIDDLE,
            size: slice.size,
            centre: [0.0; 2],
            half_extent: slice.half_extent,
            grid_index: &slice.grid_index,
            values,
            velocity,
            body: Some(body),
        };
        Panel { title: title.to_string(), note: String::new(), label: label.to_string(), scale, content: plane.into() }
    };
    let panels = vec![
        panel(model, predicted, predicted_velocity, scale, PRESSURE),
        panel("Exact potential flow", exact, exact_velocity, scale, PRESSURE),
        panel("Difference", &difference, &[], difference_scale(&difference), "ΔCp"),
    ];
    let title = "Pressure coefficient and streamlines in the plane y = 0".into();
    Figure { title, subtitle: subtitle(case), panels }.to_png()
}

/// The pressure, predicted and exact.
fn pressure(results: &Results) -> (&[f32], &[f32]) {
    pair(results, "pressure")
}

/// The velocity, predicted and exact.
fn velocity(results: &Results) -> (&[f32], &[f32]) {
    pair(results, "velocity")
}

fn pair<'a>(results: &'a Results, name: &str) -> (&'a [f32], &'a [f32]) {
    let pair = results.pairs().find(|(field, ..)| field.name == name);
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
