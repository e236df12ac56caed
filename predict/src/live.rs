//! A prediction in memory, a few points at a time, for programs that draw it themselves.
//!
//! The network is the one that comes with the program. A body is an ellipsoid, whose exact flow is known, or a surface from
//! a file; what the program would say about either on standard error is said there.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use candle_mixed_attention::candle_core::{DType, Device};
use candle_mixed_attention::models::ab_upt::Predictor;
use clap::Parser;

use crate::args::Arguments;
use crate::demo;
use crate::ellipsoid::Case;
use crate::job::{Encoded, Job, Place, predict_range};
use crate::mesh::fan;
use crate::metrics::FieldError;
use crate::output::{Alone, FieldSpec};
use crate::own;
use crate::picture::{Colormap, CutPlane, PlaneVelocity, STREAMLINE_SPACING};

/// The trained network.
#[derive(Debug)]
pub struct Network {
    predictor: Predictor,
    /// Where its files lie for the reader of bodies from files.
    folder: PathBuf,
}

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Request {
    /// What the flow goes around.
    pub body: Body,
    /// Angle of attack in degrees.
    pub alpha: f64,
    /// Sideslip in degrees.
    pub beta: f64,
    /// Anchors per domain; as many as in training if nothing is said.
    pub anchors: Option<usize>,
    /// Points of the plane through the body, along its longer side.
    pub plane_points: usize,
}

/// What the flow goes around.
#[derive(Debug, Clone)]
pub enum Body {
    /// An ellipsoid.
    Ellipsoid {
        /// Along x, y and z.
        semi_axes: [f64; 3],
        /// Vertices between its poles, and around.
        vertices: [usize; 2],
    },
    /// A surface from a file, in any format that the program reads.
    File {
        /// The file.
        path: PathBuf,
        /// What its coordinates are multiplied by.
        scale: f64,
    },
}

/// A body that the network has read, and the points around it whose fields are predicted one after another.
pub struct Prediction {
    job: Job,
    model: Encoded,
    /// How many points are done, over all places.
    done: u64,
    errors: BTreeMap<String, FieldError>,
    /// In the plane, as far as it is predicted.
    velocity: Vec<f32>,
}

/// Points where fields are predicted.
#[derive(Debug, Clone)]
pub struct Points {
    /// `surface`, or the plane: `slice` of an ellipsoid, `volume` of another body.
    pub name: String,
    /// Whether they are those of the body, or else of the plane.
    pub on_body: bool,
    /// How many.
    pub count: u64,
    /// Name and number of components of each array that is predicted: the fields, and with an exact flow also
    /// `<field>_error` and `<field>_exact`.
    pub arrays: Vec<(String, usize)>,
    /// Corners of what is drawn, `[corners, 3]`.
    pub corners: Vec<[f32; 3]>,
    /// The point whose values each corner has.
    pub point_of_corner: Vec<u32>,
    /// Three corners each, counter-clockwise seen from outside.
    pub triangles: Vec<[u32; 3]>,
}

/// Some points of one place.
#[derive(Debug, Clone)]
pub struct Piece {
    /// Which place.
    pub place: usize,
    /// Its first point.
    pub first: u64,
    /// Name, number of components and values of each array.
    pub arrays: Vec<(String, usize, Vec<f32>)>,
}

/// Red, green, blue and opacity from 0 to 1 of the two maps of the program's pictures, from their lower end to the upper.
pub fn colours(count: usize) -> [(&'static str, Vec<[f32; 4]>); 2] {
    [("viridis", Colormap::Viridis), ("cool_warm", Colormap::CoolWarm)].map(|(name, map)| {
        let at = |place: usize| {
            let [red, green, blue] = map.at(place as f32 / count.saturating_sub(1).max(1) as f32);
            [red, green, blue, 1.0]
        };
        (name, (0..count).map(at).collect())
    })
}

impl Network {
    /// Loads the network. Its files are put into a folder that exists.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn load(folder: PathBuf) -> Result<Self> {
        for (name, bytes) in demo::NETWORK_FILES {
            let path = folder.join(name);
            fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(Self { predictor: demo::predictor(DType::F32, &Device::Cpu)?, folder })
    }

    /// Lets the network read a body.
    ///
    /// # Errors
    /// What the program refuses: an impossible ellipsoid, a file that is no surface, points outside the box that the network
    /// knows.
    pub fn read(&self, request: &Request) -> Result<Prediction> {
        let mut words = vec!["predict".to_string()];
        let mut option = |name: &str, value: String| words.push(format!("--{name}={value}"));
        if let Some(anchors) = request.anchors {
            option("anchors", anchors.to_string());
        }
        let networks = Some(vec![self.predictor.clone()]);
        let Request { alpha, beta, plane_points, .. } = *request;
        let job = match &request.body {
            Body::Ellipsoid { semi_axes, vertices } => {
                let resolution = demo::Resolution::new(*vertices, plane_points);
                let case = Case::new(*semi_axes, alpha, beta)?;
                demo::job_of(case, resolution?, &Arguments::try_parse_from(words)?, networks, true)?
            }
            Body::File { path, scale } => {
                for (name, file) in ["weights", "config"].iter().zip(demo::NETWORK_FILES) {
                    option(name, self.folder.join(file.0).display().to_string());
                }
                option("geometry", path.display().to_string());
                option("scale", scale.to_string());
                option("slice-points", plane_points.to_string());
                option("condition", format!("alpha={alpha}"));
                option("condition", format!("beta={beta}"));
                own::job(&Arguments::try_parse_from(words)?, networks, &mut Alone::default())?
            }
        };
        let model = job.body.encode(&mut Alone::default())?;
        Ok(Prediction { job, model, done: 0, errors: BTreeMap::new(), velocity: Vec::new() })
    }
}

impl Prediction {
    /// Where fields are predicted: on the body, then in the plane.
    ///
    /// # Errors
    /// The body is points without faces.
    pub fn places(&self) -> Result<Vec<Points>> {
        self.job.places.iter().map(Points::of).collect()
    }

    /// Predicts the next points, at most so many, all of one place; nothing if none are left.
    ///
    /// # Errors
    /// No points are asked for; values that are not finite.
    pub fn step(&mut self, most: u64) -> Result<Option<Piece>> {
        ensure!(most > 0, "points of a step must be at least 1, got 0");
        let mut first = self.done;
        for (at, place) in self.job.places.iter_mut().enumerate() {
            let count = place.source.input.len();
            if first >= count {
                first -= count;
                continue;
            }
            let end = count.min(first + most);
            let arrays = predict_range(place, &mut self.model, first..end)?.fields;
            let written = place.written(1);
            let find = |name: &str| written.iter().position(|array| array.name == name).map(|at| &arrays[at]);
            for field in place.fields() {
                let predicted = find(&field.name).context("a field that is not predicted")?;
                if let Some(exact) = find(&format!("{}_exact", field.name)) {
                    self.errors.entry(format!("{}_{}", place.name, field.name)).or_default().add(predicted, exact)?;
                }
                if !place.wall && own::is_velocity(&field, None) {
                    self.velocity.extend_from_slice(predicted);
                }
            }
            self.done += end - first;
            let named = |(array, values): (FieldSpec, _)| (array.name, array.components, values);
            let arrays = written.into_iter().zip(arrays).map(named).collect();
            return Ok(Some(Piece { place: at, first, arrays }));
        }
        Ok(None)
    }

    /// Relative L2 errors of the points so far, by `<place>_<field>`, where the exact flow is known.
    pub fn errors(&self) -> BTreeMap<String, f64> {
        self.errors.iter().map(|(name, error)| (name.clone(), error.metrics().relative_l2)).collect()
    }

    /// Streamlines in the plane, as points across and up; none before all of its points are predicted.
    pub fn streamlines(&self) -> Vec<Vec<[f32; 2]>> {
        let plane = self.job.places.iter().find(|place| !place.wall).and_then(|place| place.source.input.mesh());
        let velocity = self.velocity.as_chunks().0;
        match plane {
            Some(mesh) if mesh.points().len() == velocity.len() => streamlines(mesh.points(), velocity),
            _ => Vec::new(),
        }
    }
}

impl fmt::Debug for Prediction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prediction").field("done", &self.done).finish_non_exhaustive()
    }
}

impl Points {
    fn of(place: &Place) -> Result<Self> {
        let input = &place.source.input;
        let mesh = input.surface().filter(|mesh| mesh.faces().next().is_some());
        let mesh = mesh.with_context(|| format!("{}: points without faces cannot be drawn", place.name))?;
        let (mut corners, mut point_of_corner, mut triangles) = (mesh.points().to_vec(), Vec::new(), Vec::new());
        match Place::cells_of_faces(input) {
            // All corners of a face have the value of its cell, so that faces share none.
            Some(cells) => {
                corners.clear();
                for (face, &cell) in mesh.faces().zip(cells) {
                    let (first, cell) = (u32::try_from(corners.len())?, u32::try_from(cell)?);
                    corners.extend(face.iter().map(|&at| mesh.points()[at as usize]));
                    point_of_corner.extend(face.iter().map(|_| cell));
                    let own: Vec<u32> = (first..first + face.len() as u32).collect();
                    triangles.extend(fan(&own));
                }
            }
            None => {
                point_of_corner.extend(0..u32::try_from(corners.len())?);
                triangles.extend(mesh.triangles());
            }
        }
        let arrays = place.written(1).into_iter().map(|array| (array.name, array.components)).collect();
        Ok(Self {
            name: place.name.clone(),
            on_body: place.wall,
            count: input.len(),
            arrays,
            corners,
            point_of_corner,
            triangles,
        })
    }
}

/// Both kinds of bodies are cut across the y axis; where does not matter here.
const PLANE: CutPlane = CutPlane { axis: 1, value: 0.0 };

/// Streamlines through points of a grid in the plane, whose rows and columns have the same coordinates to the bit.
fn streamlines(points: &[[f32; 3]], velocity: &[[f32; 3]]) -> Vec<Vec<[f32; 2]>> {
    let places = || points.iter().map(|&point| PLANE.flat(point));
    let along = |axis: usize| {
        let mut all: Vec<_> = places().map(|place| place[axis]).collect();
        all.sort_by(f32::total_cmp);
        all.dedup();
        all
    };
    let [columns, rows] = [along(0), along(1)];
    let [Some((left, right)), Some((low, high))] = [ends(&columns), ends(&rows)] else { return Vec::new() };
    let mut values = vec![None; columns.len() * rows.len()];
    for ([x, z], &velocity) in places().zip(velocity) {
        let [column, row] = [columns.partition_point(|&at| at < x), rows.partition_point(|&at| at < z)];
        values[row * columns.len() + column] = Some(PLANE.flat(velocity));
    }
    let half = |low: f32, high: f32| f64::from(high - low) / 2.0;
    let half_extent = [half(left, right), half(low, high)];
    let centre = [left.midpoint(right), low.midpoint(high)];
    let plane = PlaneVelocity { size: [columns.len(), rows.len()], half_extent, values: &values };
    let mut lines = plane.streamlines((high - low) * STREAMLINE_SPACING);
    lines.iter_mut().flatten().for_each(|[x, z]| (*x, *z) = (*x + centre[0], *z + centre[1]));
    lines
}

/// Smallest and largest of sorted numbers that are not all the same.
fn ends(sorted: &[f32]) -> Option<(f32, f32)> {
    let (&first, &last) = sorted.first().zip(sorted.last())?;
    (first < last).then_some((first, last))
}
