//! One picture for each field: on the surface or the points where it was predicted, or in a plane through a volume.

use std::path::Path;

use anyhow::Result;
use candle_mixed_attention::models::ab_upt::{EncodedBody, sample_indices};
use serde_json::{Map, Value};

use super::Setup;
use super::setup::Place;
use crate::args::Arguments;
use crate::input::Table;
use crate::mesh::Mesh;
use crate::output::FieldSpec;
use crate::picture::{
    Colormap, Content, CutPlane, Figure, Panel, PlanePanel, Scale, SurfacePanel, inside, rounded, section,
};

/// Points of a cloud that are drawn; more would hide each other.
const MOST_POINTS: usize = 100_000;

/// Draws every field of every place; returns the names and contents of the files.
pub fn draw(setup: &mut Setup, body: &EncodedBody, arguments: &Arguments) -> Result<Vec<(String, Vec<u8>)>> {
    let (folder, chunk) = (&arguments.output.out, usize::try_from(arguments.compute.chunk.get())?);
    let outline = setup.body().cloned();
    let mut pictures = Vec::new();
    for place in &mut setup.places {
        match place.slice {
            Some(plane) => {
                let points = arguments.model.slice_points.get();
                let grid = Grid::new(plane, place.source.bounds, points, outline.as_ref());
                draw_plane(place, body, &grid, outline.as_ref(), chunk, &setup.remarks, &mut pictures)?;
            }
            None => draw_points(place, folder, &setup.remarks, &mut pictures)?,
        }
    }
    Ok(pictures)
}

/// The fields where they were predicted, beside the true ones where those are known.
fn draw_points(
    place: &mut Place,
    folder: &Path,
    remarks: &Map<String, Value>,
    pictures: &mut Vec<(String, Vec<u8>)>,
) -> Result<()> {
    let domain = place.domain.name.clone();
    let file = folder.join(format!("{domain}.safetensors")).display().to_string();
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
        let truth = place.truth.as_mut().and_then(|truth| truth.field(&field.name));
        let truth = truth.map(|truth| Ok::<_, anyhow::Error>(drawable(&truth.pick(&rows)?, &field))).transpose()?;
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

/// The fields in a plane, predicted for the picture.
fn draw_plane(
    place: &Place,
    body: &EncodedBody,
    grid: &Grid,
    outline: Option<&Mesh>,
    chunk: usize,
    remarks: &Map<String, Value>,
    pictures: &mut Vec<(String, Vec<u8>)>,
) -> Result<()> {
    let domain = &place.domain.name;
    let mut fields = vec![Vec::new(); place.domain.fields.len()];
    for predicted in body.chunks(domain, grid.points.iter().copied(), chunk) {
        let predicted = predicted?;
        for (values, field) in fields.iter_mut().zip(&place.domain.fields) {
            values.extend(predicted.values(&field.name)?);
        }
    }
    let specs = place.fields();
    let is_velocity =
        |field: &FieldSpec| field.components == 3 && (field.name.contains("velocity") || field.name == "u");
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
            body: outline,
        };
        let CutPlane { axis, value } = grid.plane;
        let extent = place.source.bounds.map(|corner| f64::from(corner[axis]));
        let value = rounded(f64::from(value), extent[1] - extent[0]);
        let title = format!("In the plane {} = {value}", ["x", "y", "z"][axis]);
        let panels = vec![panel(&title, &label(field), scale(&values), content.into())];
        let figure =
            Figure { title: format!("{domain}: {}", field.name), subtitle: remark(remarks, domain, field), panels };
        pictures.push((format!("{domain}_{}.png", file_name(&field.name)), figure.to_png()?));
    }
    Ok(())
}

/// A regular grid in a plane, without the points inside the body.
struct Grid {
    plane: CutPlane,
    size: [usize; 2],
    centre: [f64; 2],
    half_extent: [f64; 2],
    /// Place of every point in the full grid, row after row.
    index: Vec<usize>,
    points: Vec<[f32; 3]>,
}

impl Grid {
    /// `longer` points along the longer side of the box of the points.
    fn new(plane: CutPlane, bounds: [[f32; 3]; 2], longer: usize, body: Option<&Mesh>) -> Self {
        let [low, high] = bounds.map(|corner| plane.flat(corner).map(f64::from));
        let extent = [high[0] - low[0], high[1] - low[1]];
        let spacing = extent[0].max(extent[1]) / (longer.max(2) - 1) as f64;
        let size = extent.map(|extent| (extent / spacing).round().max(1.0) as usize + 1);
        let outline = body.map(|body| section(body, plane)).unwrap_or_default();
        let along = |axis: usize, at: usize| {
            // The last point would be a rounding away from the end of the box.
            let place = low[axis] + extent[axis] * at as f64 / (size[axis] - 1) as f64;
            (place as f32).clamp(low[axis] as f32, high[axis] as f32)
        };
        let (mut index, mut points) = (Vec::new(), Vec::new());
        for row in 0..size[1] {
            let up = along(1, row);
            let solid = inside(&outline, up);
            for column in 0..size[0] {
                let across = along(0, column);
                if !solid.iter().any(|[left, right]| (left..=right).contains(&&across)) {
                    index.push(row * size[0] + column);
                    points.push(plane.lift([across, up]));
                }
            }
        }
        let centre = std::array::from_fn(|axis| (low[axis] + high[axis]) / 2.0);
        Self { plane, size, centre, half_extent: extent.map(|extent| extent / 2.0), index, points }
    }
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
