//! Results for code: `positions` and one tensor per field, `[points, components]` in f32.

use serde_json::{Map, Value, json};

use super::FieldSpec;
use super::layout::{FileLayout, RowSource};

/// The format wants the data to begin at a multiple of this.
const ALIGNMENT: usize = 8;

/// The name of the tensor with the positions.
pub(super) const POSITIONS: &str = "positions";

/// A safetensors file with the positions and fields of `points` points.
pub(super) fn safetensors_layout(name: &str, points: u64, fields: &[FieldSpec]) -> FileLayout {
    let positions = (POSITIONS, RowSource::Position, 3);
    let values = fields.iter().enumerate().map(|(at, field)| {
        let FieldSpec { name, components } = field;
        (name.as_str(), RowSource::Field(at, *components), *components)
    });
    let tensors: Vec<_> = std::iter::once(positions).chain(values).collect();

    let mut header = Map::new();
    let mut end = 0;
    for &(name, source, components) in &tensors {
        let start = end;
        end += points * source.width();
        let entry = json!({"dtype": "F32", "shape": [points, components], "data_offsets": [start, end]});
        header.insert(name.to_string(), entry);
    }
    let mut header = Value::Object(header).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(ALIGNMENT), b' ');

    let opening = [(header.len() as u64).to_le_bytes().as_slice(), &header].concat();
    tensors.iter().fold(FileLayout::new(name).fixed(opening), |file, tensor| file.rows(tensor.1, 0..points))
}
