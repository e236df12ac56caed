//! One picture for each field: on the surface or the points where it was predicted, or in a plane through a volume.

use std::path::Path;

use anyhow::Result;
use candle_mixed_attention::models::ab_upt::sample_indices;
use serde_json::{Map, Value};

use super::grid::Grid;
use crate::input::Table;
use crate::job::{FlowModel, Pictures, Place, Settings};
use crate::mesh::Mesh;
use crate::metrics::Metrics;
use crate::output::FieldSpec;
use crate::picture::{Colormap, Content, CutPlane, Figure, Panel, PlanePanel, Scale, SurfacePanel, rounded};

/// Points of a cloud that are drawn; more would hide each other.
const MOST_POINTS: usize = 100_000;

/// Draws every field of every place.
pub(super) struct FieldPictures {
    /// Domains that are drawn in planes, in one or more each.
    pub planes: Vec<(String, CutPlane)>,
    /// Points of such a plane along its longer side.
    pub points_across: usize,
    /// The field that is the velocity, if somebody says so.
    pub velocity: Option<String>,
    /// The body, where it is a mesh.
    pub body: Option<Mesh>,
    /// What the description of the model says about fields, by `<domain>_<field>`.
    pub remarks: Map<String, Value>,
}

impl Pictures for FieldPictures {
    fn draw(
        &self,
        places: &mut [Place],
        model: &mut dyn FlowModel,
        settings: &Settings,
        _: &Metrics,
    ) -> Result<Vec<(String, Vec<u8>)>> {
        let mut pictures = Vec::new();
        for place in places {
            let planes = self.planes.iter().filter(|(domain, _)| *domain == place.domain.name);
            let planes: Vec<_> = planes.map(|(_, plane)| *plane).collect();
            for &plane in &planes {
                let grid = Grid::new(plane, place.source.bounds, self.points_across, self.body.as_ref());
                let CutPlane { axis, value } = plane;
                let which = match planes.len() {
                    1 => String::new(),
                    _ => file_name(&format!("_{}{value}", ["x", "y", "z"][axis])),
                };
                self.draw_plane(place, model, &grid, usize::try_from(settings.chunk)?, &which, &mut pictures)?;
            }
            if planes.is_empty() {
                draw_points(place, settings.folder, &self.remarks, &mut pictures)?;
            }
        }
        Ok(pictures)
    }
}

impl FieldPictures {
    /// The fields in a plane, predicted for the picture. `which` is what tells the file from those of other planes.
    fn draw_plane(
        &self,
        place: &Place,
        model: &mut dyn FlowModel,
        grid: &Grid,
        chunk: usize,
        which: &str,
        pictures: &mut Vec<(String, Vec<u8>)>,
    ) -> Result<()> {
        let domain = &place.domain.name;
        let specs = place.fields();
        let mut fields = vec![Vec::new(); specs.len()];
        for (at, points) in grid.points.chunks(chunk).enumerate() {
            let predicted = model.predict(domain, (at * chunk) as u64, points)?;
            for (values, predicted) in fields.iter_mut().zip(predicted) {
                values.extend(predicted);
            }
        }
        let is_velocity = |field: &FieldSpec| is_velocity(field, self.velocity.as_deref());
        let velocity = specs.iter().position(is_velocity).map_or(&[][..], |at| fields[at].as_slice());
        for (field, values) in specs.iter().zip(&fields) {
            let values = drawable(values, field);
            let content = PlanePanel {
                plane: grid.plane,
                size: grid.size,
                centre: grid.centre,
                half_extent: grid.half_extent,
                grid_index: &grid.index,
                values: &values,
                velocity,
                body: self.body.as_ref(),
            };
            let CutPlane { axis, value } = grid.plane;
            let extent = place.source.bounds.map(|corner| f64::from(corner[axis]));
            let value = rounded(f64::from(value), extent[1] - extent[0]);
            let title = format!("In the plane {} = {value}", ["x", "y", "z"][axis]);
            let panels = vec![panel(&title, &label(field), scale(&values), content.into())];
            let subtitle = remark(&self.remarks, domain, field);
            let figure = Figure { title: format!("{domain}: {}", field.name), subtitle, panels };
            pictures.push((format!("{domain}_{}{which}.png", file_name(&field.name)), figure.to_png()?));
        }
        Ok(())
    }
}

/// The fields where they were predicted, beside the true ones where those are known.
fn draw_points(
    place: &mut Place,
    folder: &Path,
    remarks: &Map<String, Value>,
    pictures: &mut Vec<(String, Vec<u8>)>,
) -> Result<()> {
    let domain = place.domain.name.clone();
    let finished = folder.join(format!("{}.safetensors", place.name));
    let file = finished.display().to_string();
    let cloud;
    let (mesh, rows) = match place.source.input.mesh() {
        Some(mesh) => (mesh, (0..mesh.points().len()).collect()),
        None => {
            let rows = sample_indices(usize::try_from(place.source.input.len())?, MOST_POINTS, 0);
            cloud = Mesh::new(Table::open(&file, Some("positions"))?.pick(&rows)?.as_chunks().0.to_vec());
            (&cloud, rows)
        }
    };
    for field in place.fields() {
        let predicted = drawable(&Table::open(&file, Some(&field.name))?.pick(&rows)?, &field);
        let truth = match &mut place.truth {
            Some(truth) => truth.table(&field.name, &finished)?,
            None => None,
        };
        let truth = truth.map(|mut truth| truth.table().pick(&rows)).transpose()?;
        let truth = truth.map(|values| drawable(&values, &field));
        let content = |values| Content::from(SurfacePanel { mesh, values });
        let label = label(&field);
        let scale = scale(truth.as_deref().unwrap_or(&predicted));
        let mut panels = vec![panel("Predicted", &label, scale, content(&predicted))];
        let difference: Vec<f32>;
        if let Some(truth) = &truth {
            difference = predicted.iter().zip(truth).map(|(predicted, truth)| predicted - truth).collect();
            panels.push(panel("True", &label, scale, content(truth)));
            let scale = Scale::symmetric(&difference, Colormap::CoolWarm);
            panels.push(panel("Difference", &format!("Δ {label}"), scale, content(&difference)));
        }
        let remark = remark(remarks, &domain, &field);
        let figure = Figure { title: format!("{domain}: {}", field.name), subtitle: remark, panels };
        pictures.push((format!("{domain}_{}.png", file_name(&field.name)), figure.to_png()?));
    }
    Ok(())
}

/// Whether a field is the velocity: the one that somebody named, or one that is called so.
pub(crate) fn is_velocity(field: &FieldSpec, given: Option<&str>) -> bool {
    let called =
        || field.name.to_lowercase().contains("velocity") || matches!(field.name.as_str(), "u" | "U" | "UMean");
    field.components == 3 && given.map_or_else(called, |given| field.name == given)
}

/// A scalar as it is, a vector as its length.
fn drawable(values: &[f32], field: &FieldSpec) -> Vec<f32> {
    match field.components {
        1 => values.to_vec(),
        components => {
            values.chunks_exact(components).map(|vector| vector.iter().map(|x| x * x).sum::<f32>().sqrt()).collect()
        }
    }
}

fn label(field: &FieldSpec) -> String {
    if field.components == 1 { field.name.clone() } else { format!("|{}|", field.name) }
}

/// Colours on both sides of 0 where the values have both signs.
fn scale(values: &[f32]) -> Scale {
    let spanning = Scale::spanning(values, Colormap::Viridis);
    let both = spanning.min < 0.0 && spanning.max > 0.0;
    if both { Scale::symmetric(values, Colormap::CoolWarm) } else { spanning }
}

fn panel<'a>(title: &str, label: &str, scale: Scale, content: Content<'a>) -> Panel<'a> {
    Panel { title: title.to_string(), note: String::new(), label: label.to_string(), scale, content }
}

/// What the description of the model says about a field.
fn remark(remarks: &Map<String, Value>, domain: &str, field: &FieldSpec) -> String {
    remarks.get(&format!("{domain}_{}", field.name)).and_then(Value::as_str).unwrap_or_default().to_string()
}

/// A field may have any name, a file not.
fn file_name(field: &str) -> String {
    field.chars().map(|letter| if letter.is_alphanumeric() || "-_".contains(letter) { letter } else { '_' }).collect()
}
