//! One picture for each field: on the surface or the points where it was predicted, or in a plane through a volume.

use std::path::{Path, PathBuf};

use anyhow::Result;
use candle_mixed_attention::models::ab_upt::sample_indices;
use serde_json::{Map, Value};

use super::beside::nearest_places;
use super::grid::Grid;
use crate::input::Table;
use crate::job::{FlowModel, Pictures, Place, Settings, Truth, predict_all};
use crate::mesh::Mesh;
use crate::metrics::Metrics;
use crate::output::FieldSpec;
use crate::picture::{Colormap, Content, CutPlane, Figure, OnBody, Panel, PlanePanel, Scale, SurfacePanel, rounded};

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
                self.draw_plane(place, model, &grid, settings, &which, &mut pictures)?;
            }
            if planes.is_empty() {
                draw_places(place, settings.folder, &self.remarks, &mut pictures)?;
            }
        }
        Ok(pictures)
    }
}

impl FieldPictures {
    /// The fields in a plane, predicted for the picture; where true ones are known, those and the difference at the nearest
    /// places. `which` is what tells the file from those of other planes.
    fn draw_plane(
        &self,
        place: &mut Place,
        model: &mut dyn FlowModel,
        grid: &Grid,
        settings: &Settings,
        which: &str,
        pictures: &mut Vec<(String, Vec<u8>)>,
    ) -> Result<()> {
        let domain = place.domain.name.clone();
        let specs = place.fields();
        let fields = predict_all(model, &domain, specs.len(), &grid.points, settings.chunk)?;
        let is_velocity = |field: &FieldSpec| is_velocity(field, self.velocity.as_deref());
        let velocity = specs.iter().position(is_velocity).map_or(&[][..], |at| fields[at].as_slice());
        let results = Results::of(place, settings.folder);
        let nearest = match &place.truth {
            Some(_) => nearest_places(grid, &mut results.table("positions")?, settings.chunk)?,
            None => Vec::new(),
        };
        let CutPlane { axis, value } = grid.plane;
        let extent = place.source.bounds.map(|corner| f64::from(corner[axis]));
        let value = rounded(f64::from(value), extent[1] - extent[0]);
        let title = format!("In the plane {} = {value}", ["x", "y", "z"][axis]);
        let note = format!("at the nearest of its {}", place.source.input.called());
        for (field, values) in specs.iter().zip(&fields) {
            let values = drawable(values, field);
            let content = |values, velocity| {
                Content::from(PlanePanel {
                    plane: grid.plane,
                    size: grid.size,
                    centre: grid.centre,
                    half_extent: grid.half_extent,
                    grid_index: &grid.index,
                    values,
                    velocity,
                    body: self.body.as_ref(),
                })
            };
            let beside = results.beside_truth(&mut place.truth, field, &nearest)?;
            let (label, scale) = (label(field), scale(beside.as_ref().map_or(&values, |(_, truth)| truth)));
            let mut panels = vec![panel(&title, &label, scale, content(&values, velocity))];
            let difference: Vec<f32>;
            if let Some((predicted, truth)) = &beside {
                difference = differences(predicted, truth);
                let of_truth = panel("True", &label, scale, content(truth, &[]));
                let of_difference = difference_panel(&label, &difference, content(&difference, &[]));
                panels.extend([of_truth, of_difference].map(|panel| Panel { note: note.clone(), ..panel }));
            }
            let subtitle = remark(&self.remarks, &domain, field);
            let figure = Figure { title: format!("{domain}: {}", field.name), subtitle, panels };
            pictures.push((format!("{domain}_{}{which}.png", file_name(&field.name)), figure.to_png()?));
        }
        Ok(())
    }
}

/// The finished file of a place.
struct Results {
    path: PathBuf,
}

impl Results {
    fn of(place: &Place, folder: &Path) -> Self {
        Self { path: folder.join(format!("{}.safetensors", place.name)) }
    }

    fn table(&self, array: &str) -> Result<Table> {
        Table::open(&self.path.display().to_string(), Some(array))
    }

    /// A predicted field at some places, as it is drawn.
    fn predicted(&self, field: &FieldSpec, rows: &[usize]) -> Result<Vec<f32>> {
        Ok(drawable(&self.table(&field.name)?.pick(rows)?, field))
    }

    /// A predicted field and the true one at some places, as they are drawn, if the latter is known.
    fn beside_truth(
        &self,
        truth: &mut Option<Truth>,
        field: &FieldSpec,
        rows: &[usize],
    ) -> Result<Option<(Vec<f32>, Vec<f32>)>> {
        let Some(truth) = truth else { return Ok(None) };
        let Some(mut table) = truth.table(&field.name, &self.path)? else { return Ok(None) };
        let truth = drawable(&table.table().pick(rows)?, field);
        Ok(Some((self.predicted(field, rows)?, truth)))
    }
}

/// The fields where they were predicted, beside the true ones where those are known.
fn draw_places(
    place: &mut Place,
    folder: &Path,
    remarks: &Map<String, Value>,
    pictures: &mut Vec<(String, Vec<u8>)>,
) -> Result<()> {
    let (domain, fields) = (place.domain.name.clone(), place.fields());
    let results = Results::of(place, folder);
    let input = &place.source.input;
    let cells = Place::cells_of_faces(input);
    let cloud;
    let (mesh, rows) = match (input.surface().filter(|_| cells.is_some()).or(input.mesh()), cells) {
        (Some(mesh), Some(cells)) => {
            (mesh, cells.iter().map(|&cell| usize::try_from(cell)).collect::<Result<Vec<_>, _>>()?)
        }
        (Some(mesh), None) => (mesh, (0..mesh.points().len()).collect()),
        (None, _) => {
            let rows = sample_indices(usize::try_from(input.len())?, MOST_POINTS, 0);
            cloud = Mesh::new(results.table("positions")?.pick(&rows)?.as_chunks().0.to_vec());
            (&cloud, rows)
        }
    };
    for field in fields {
        let truth = results.beside_truth(&mut place.truth, &field, &rows)?;
        let (predicted, truth) = match truth {
            Some((predicted, truth)) => (predicted, Some(truth)),
            None => (results.predicted(&field, &rows)?, None),
        };
        let content = |values| {
            let values = if cells.is_some() { OnBody::Faces(values) } else { OnBody::Vertices(values) };
            Content::from(SurfacePanel { mesh, values })
        };
        let label = label(&field);
        let scale = scale(truth.as_deref().unwrap_or(&predicted));
        let mut panels = vec![panel("Predicted", &label, scale, content(&predicted))];
        let difference: Vec<f32>;
        if let Some(truth) = &truth {
            difference = differences(&predicted, truth);
            panels.push(panel("True", &label, scale, content(truth)));
            panels.push(difference_panel(&label, &difference, content(&difference)));
        }
        let remark = remark(remarks, &domain, &field);
        let figure = Figure { title: format!("{domain}: {}", field.name), subtitle: remark, panels };
        pictures.push((format!("{domain}_{}.png", file_name(&field.name)), figure.to_png()?));
    }
    Ok(())
}

fn differences(predicted: &[f32], truth: &[f32]) -> Vec<f32> {
    predicted.iter().zip(truth).map(|(predicted, truth)| predicted - truth).collect()
}

fn difference_panel<'a>(label: &str, difference: &[f32], content: Content<'a>) -> Panel<'a> {
    panel("Difference", &format!("Δ {label}"), Scale::symmetric(difference, Colormap::CoolWarm), content)
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
