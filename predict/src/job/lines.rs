//! Fields along a line, as CSV and as a picture.

use std::fmt::Write;

use anyhow::Result;
use candle_mixed_attention::models::ab_upt::{Component, DomainConfig};

use super::{FlowModel, predict_all};
use crate::picture::{Colormap, CurvePanel, Figure, Panel, Scale};
use crate::vector::{Vec3, length, sub};

/// Evenly spaced points from one end to the other.
pub(crate) struct Line {
    /// The name of its files.
    pub(crate) name: String,
    pub(crate) domain: DomainConfig,
    pub(crate) from: Vec3,
    pub(crate) to: Vec3,
    /// At least two.
    pub(crate) points: usize,
}

impl Line {
    /// The points.
    pub(crate) fn points(&self) -> Vec<[f32; 3]> {
        evenly(self.from, self.to, self.points)
    }

    /// Names and contents of its files.
    pub(super) fn files(&self, model: &mut dyn FlowModel, chunk: u64) -> Result<[(String, Vec<u8>); 2]> {
        let points = self.points();
        let fields = predict_all(model, &self.domain.name, self.domain.fields.len(), &points, chunk)?;
        let reach = length(sub(self.to, self.from));
        let distances: Vec<_> =
            (0..self.points).map(|at| reach * at as f64 / (self.points - 1).max(1) as f64).collect();
        Ok([
            (format!("{}.csv", self.name), self.csv(&points, &distances, &fields)?),
            (format!("{}.png", self.name), self.picture(&distances, &fields)?),
        ])
    }

    /// A row per point: the distance from the first, the position, the fields.
    fn csv(&self, points: &[[f32; 3]], distances: &[f64], fields: &[Vec<f32>]) -> Result<Vec<u8>> {
        let mut text = String::from("distance,x,y,z");
        for field in &self.domain.fields {
            components(&field.name, field.dim).into_iter().try_for_each(|name| write!(text, ",{name}"))?;
        }
        text.push('\n');
        for (at, ([x, y, z], distance)) in points.iter().zip(distances).enumerate() {
            write!(text, "{distance},{x},{y},{z}")?;
            for (field, values) in self.domain.fields.iter().zip(fields) {
                values[at * field.dim..][..field.dim].iter().try_for_each(|value| write!(text, ",{value}"))?;
            }
            text.push('\n');
        }
        Ok(text.into_bytes())
    }

    /// A panel for each field, with a curve for each of its components.
    fn picture(&self, distances: &[f64], fields: &[Vec<f32>]) -> Result<Vec<u8>> {
        let panel = |(field, values): (&Component, &Vec<f32>)| {
            let names = components(&field.name, field.dim).into_iter().enumerate();
            let curve = |(i, name)| (name, values.iter().skip(i).step_by(field.dim).copied().collect());
            let content = CurvePanel { distances, curves: names.map(curve).collect() };
            Panel {
                title: field.name.clone(),
                note: String::new(),
                label: String::new(),
                scale: Scale::spanning(values, Colormap::Viridis),
                content: content.into(),
            }
        };
        let place = |[x, y, z]: Vec3| format!("({x}, {y}, {z})");
        let subtitle = format!("from {} to {}", place(self.from), place(self.to));
        let panels = self.domain.fields.iter().zip(fields).map(panel).collect();
        Figure { title: format!("{}: along a line", self.domain.name), subtitle, panels }.to_png()
    }
}

/// So many points from one end to the other; one of them lies in the middle.
pub(super) fn evenly(from: Vec3, to: Vec3, count: usize) -> Vec<[f32; 3]> {
    let share = |at: usize| if count > 1 { at as f64 / (count - 1) as f64 } else { 0.5 };
    (0..count).map(|at| std::array::from_fn(|i| (from[i] + share(at) * (to[i] - from[i])) as f32)).collect()
}

/// Names of the components of a field.
fn components(field: &str, count: usize) -> Vec<String> {
    match count {
        1 => vec![field.to_string()],
        3 => ["x", "y", "z"].map(|axis| format!("{field}_{axis}")).to_vec(),
        _ => (0..count).map(|i| format!("{field}_{i}")).collect(),
    }
}
