//! The figures of the demo: predicted, exact, and the difference.

use anyhow::{Context, Result, ensure};

use crate::ellipsoid::{Case, Slice};
use crate::input::Table;
use crate::job::{FlowModel, Pictures, Place, Settings};
use crate::mesh::Mesh;
use crate::metrics::Metrics;
use crate::picture::{Colormap, CutPlane, Figure, OnBody, Panel, PlanePanel, Scale, SurfacePanel};

const PRESSURE: &str = "Cp";

/// What predicts, in titles.
const MODEL: &str = "AB-UPT";

/// The plane of the slice.
const MIDDLE: CutPlane = CutPlane { axis: 1, value: 0.0 };

/// Draws the surface, the slice, and both in one figure.
pub(super) struct DemoPictures {
    pub case: Case,
    pub slice: Slice,
}

/// A field, predicted and exact.
struct Pair {
    predicted: Vec<f32>,
    exact: Vec<f32>,
}

impl Pair {
    /// Reads a field of a finished place.
    fn read(place: &Place, field: &str, settings: &Settings) -> Result<Self> {
        let file = settings.folder.join(format!("{}.safetensors", place.name)).display().to_string();
        let whole = |name: &str| {
            let mut table = Table::open(&file, Some(name))?;
            table.read(0..table.rows())
        };
        Ok(Self { predicted: whole(field)?, exact: whole(&format!("{field}_exact"))? })
    }

    fn difference(&self) -> Vec<f32> {
        self.predicted.iter().zip(&self.exact).map(|(predicted, exact)| predicted - exact).collect()
    }
}

impl Pictures for DemoPictures {
    fn draw(
        &self,
        places: &mut [Place],
        _: &mut dyn FlowModel,
        settings: &Settings,
        metrics: &Metrics,
    ) -> Result<Vec<(String, Vec<u8>)>> {
        let [surface, slice] = places else { anyhow::bail!("the demo has two places, got {}", places.len()) };
        let body = surface.source.input.mesh().context("the surface is a mesh")?;
        let on_surface = Pair::read(surface, "pressure", settings)?;
        let (pressure, velocity) = (Pair::read(slice, "pressure", settings)?, Pair::read(slice, "velocity", settings)?);
        let points = self.slice.grid_index.len();
        ensure!(pressure.predicted.len() == points, "the slice has {points} points, got {}", pressure.predicted.len());
        Ok(vec![
            ("surface.png".to_string(), self.surface(body, &on_surface)?),
            ("slice.png".to_string(), self.slice(body, &pressure, &velocity)?),
            ("flow.png".to_string(), self.overview(body, &on_surface, &pressure, &velocity, metrics)?),
        ])
    }
}

impl DemoPictures {
    /// The predicted pressure, on the body and in the plane y = 0: the whole demo at a glance.
    fn overview(
        &self,
        body: &Mesh,
        on_surface: &Pair,
        pressure: &Pair,
        velocity: &Pair,
        metrics: &Metrics,
    ) -> Result<Vec<u8>> {
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
                scale: Scale::symmetric(&on_surface.predicted, Colormap::CoolWarm),
                content: SurfacePanel { mesh: body, values: OnBody::Vertices(&on_surface.predicted) }.into(),
            },
            Panel {
                title: "In the plane y = 0, with streamlines".into(),
                note: errors(&[("pressure", "slice_pressure"), ("velocity", "slice_velocity")]),
                label: PRESSURE.into(),
                scale: Scale::spanning(&pressure.predicted, Colormap::Viridis),
                content: self.plane(body, &pressure.predicted, &velocity.predicted).into(),
            },
        ];
        let title = format!("Pressure coefficient around an ellipsoid, predicted by {MODEL}");
        Figure { title, subtitle: subtitle(&self.case), panels }.to_png()
    }

    /// The surface pressure on the body.
    fn surface(&self, mesh: &Mesh, pressure: &Pair) -> Result<Vec<u8>> {
        let difference = pressure.difference();
        let scale = Scale::symmetric(&pressure.exact, Colormap::CoolWarm);
        let panel = |title: &str, values, scale, label: &str| {
            let content = SurfacePanel { mesh, values: OnBody::Vertices(values) }.into();
            Panel { title: title.to_string(), note: String::new(), label: label.to_string(), scale, content }
        };
        let panels = vec![
            panel(MODEL, &pressure.predicted, scale, PRESSURE),
            panel("Exact potential flow", &pressure.exact, scale, PRESSURE),
            panel("Difference", &difference, difference_scale(&difference), "ΔCp"),
        ];
        let title = "Pressure coefficient on the surface".into();
        Figure { title, subtitle: subtitle(&self.case), panels }.to_png()
    }

    /// The pressure in the plane y = 0, with streamlines.
    fn slice(&self, body: &Mesh, pressure: &Pair, velocity: &Pair) -> Result<Vec<u8>> {
        let difference = pressure.difference();
        let scale = Scale::spanning(&pressure.exact, Colormap::Viridis);
        let panel = |title: &str, values, velocity, scale, label: &str| {
            let content = self.plane(body, values, velocity).into();
            Panel { title: title.to_string(), note: String::new(), label: label.to_string(), scale, content }
        };
        let panels = vec![
            panel(MODEL, &pressure.predicted, &velocity.predicted, scale, PRESSURE),
            panel("Exact potential flow", &pressure.exact, &velocity.exact, scale, PRESSURE),
            panel("Difference", &difference, &[], difference_scale(&difference), "ΔCp"),
        ];
        let title = "Pressure coefficient and streamlines in the plane y = 0".into();
        Figure { title, subtitle: subtitle(&self.case), panels }.to_png()
    }

    /// A field in the slice; `velocity` is empty for a picture without streamlines.
    fn plane<'a>(&'a self, body: &'a Mesh, values: &'a [f32], velocity: &'a [f32]) -> PlanePanel<'a> {
        PlanePanel {
            plane: MIDDLE,
            size: self.slice.size,
            centre: [0.0; 2],
            half_extent: self.slice.half_extent,
            grid_index: &self.slice.grid_index,
            values,
            velocity,
            body: Some(body),
        }
    }
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
