//! What the page asks.

use std::path::PathBuf;

use predict::live::{Body, Request};
use serde::Deserialize;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Question {
    /// The colour maps of the program's pictures.
    Colours,
    /// Let the network read a body.
    Read(Read),
    /// Predict the next points around it.
    Step { points: u64 },
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Read {
    body: Shape,
    alpha: f64,
    beta: f64,
    anchors: Option<usize>,
    plane_points: usize,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Shape {
    Ellipsoid { semi_axes: [f64; 3], vertices: [usize; 2] },
    File { path: PathBuf, scale: f64 },
}

impl From<Read> for Request {
    fn from(read: Read) -> Self {
        let Read { body, alpha, beta, anchors, plane_points } = read;
        let body = match body {
            Shape::Ellipsoid { semi_axes, vertices } => Body::Ellipsoid { semi_axes, vertices },
            Shape::File { path, scale } => Body::File { path, scale },
        };
        Self { body, alpha, beta, anchors, plane_points }
    }
}
