//! Fields along a line, as CSV.

use std::fmt::Write;

use anyhow::Result;
use candle_mixed_attention::models::ab_upt::DomainConfig;

use super::FlowModel;

/// Evenly spaced points from one end to the other.
pub(crate) struct Line {
    /// The name of its file.
    pub name: String,
    pub domain: DomainConfig,
    pub from: [f64; 3],
    pub to: [f64; 3],
    /// At least two.
    pub points: usize,
}

impl Line {
    /// The points.
    pub(crate) fn points(&self) -> Vec<[f32; 3]> {
        let place = |at: usize| {
            let share = at as f64 / (self.points - 1) as f64;
            std::array::from_fn(|i| (self.from[i] + share * (self.to[i] - self.from[i])) as f32)
        };
        (0..self.points).map(place).collect()
    }

    /// A row per point: the distance from the first, the position, the fields.
    pub(crate) fn csv(&self, model: &mut dyn FlowModel) -> Result<Vec<u8>> {
        let points = self.points();
        let fields = model.predict(&self.domain.name, 0, &points)?;
        let mut text = String::from("distance,x,y,z");
        for field in &self.domain.fields {
            match field.dim {
                1 => write!(text, ",{}", field.name)?,
                3 => write!(text, ",{0}_x,{0}_y,{0}_z", field.name)?,
                components => (0..components).try_for_each(|i| write!(text, ",{}_{i}", field.name))?,
            }
        }
        text.push('\n');
        let length = (0..3).map(|i| (self.to[i] - self.from[i]).powi(2)).sum::<f64>().sqrt();
        for (at, [x, y, z]) in points.into_iter().enumerate() {
            write!(text, "{},{x},{y},{z}", length * at as f64 / (self.points - 1) as f64)?;
            for (field, values) in self.domain.fields.iter().zip(&fields) {
                values[at * field.dim..][..field.dim].iter().try_for_each(|value| write!(text, ",{value}"))?;
            }
            text.push('\n');
        }
        Ok(text.into_bytes())
    }
}
