//! The demo: the flow past an ellipsoid, predicted and exact, as files, pictures and errors.

mod model;
mod network;
mod pictures;

use std::path::Path;

use anyhow::{Context, Result, ensure};
use candle_mixed_attention::candle_core::{Device, safetensors};
use serde_json::{Map, Value, json};

pub use model::{FlowModel, PlaceKind};
pub use network::{Network, warning};

use crate::ellipsoid::{Case, Flow, Slice, surface_mesh};
use crate::mesh::Mesh;
use crate::metrics::{FieldError, Metrics};
use crate::output::{Chunk, Existing, FieldSpec, LocalDisk, Part, Run, Space, write_npz, write_whole};
use crate::progress::Progress;

/// Half the height of the slice.
const SLICE_HALF_HEIGHT: f64 = 2.0;

/// How many points the demo predicts.
#[derive(Debug, Clone, Copy)]
pub struct Resolution {
    /// Vertices of the surface mesh: rings between the poles, and around.
    pub surface: [usize; 2],
    /// Points of the slice along x and z.
    pub slice: [usize; 2],
}

impl Resolution {
    /// Fine enough for pictures.
    pub const FINE: Self = Self { surface: [127, 256], slice: [401, 321] };
}

/// What to do with the results.
pub struct Options<'a> {
    /// Where they go.
    pub folder: &'a Path,
    /// What to do with earlier ones.
    pub existing: Existing,
    /// Points predicted at once.
    pub chunk: u64,
    /// Whether to write `.npz` files too.
    pub npz: bool,
    /// What the prediction depends on besides the body, for `run.json`.
    pub inputs: Map<String, Value>,
}

/// A place of the demo with its points and the fields that are predicted there.
struct Place {
    kind: PlaceKind,
    mesh: Mesh,
}

/// The surface and the slice of a body.
pub struct Demo {
    case: Case,
    slice: Slice,
    places: [Place; 2],
}

impl Demo {
    /// The demo for a body.
    pub fn new(case: Case, resolution: Resolution) -> Self {
        let ([rings, sectors], [columns, rows]) = (resolution.surface, resolution.slice);
        let slice = Slice::new(case.semi_axes, columns, rows, SLICE_HALF_HEIGHT);
        let surface = Place { kind: PlaceKind::Surface, mesh: surface_mesh(case.semi_axes, rings, sectors) };
        let plane = Place { kind: PlaceKind::Slice, mesh: slice.mesh.clone() };
        Self { case, slice, places: [surface, plane] }
    }

    /// What is written: for both places a `.vtp` and a `.safetensors` file.
    pub fn parts(&self, npz: bool) -> Vec<Part> {
        let part = |place: &Place| {
            let points = place.mesh.points().len() as u64;
            Part::new(place.kind.name(), points, written_fields(place.kind), Some(&place.mesh), npz)
        };
        self.places.iter().map(part).collect()
    }

    /// All that the result depends on.
    fn identity(&self, options: &Options) -> Map<String, Value> {
        let mut inputs = options.inputs.clone();
        inputs.insert("semi_axes".into(), json!(self.case.semi_axes));
        inputs.insert("alpha".into(), json!(self.case.alpha));
        inputs.insert("beta".into(), json!(self.case.beta));
        inputs
    }

    /// Checks that the results can be written, and writes nothing.
    pub fn rehearse(&self, options: &Options) -> Result<Space> {
        let (inputs, parts) = (self.identity(options), self.parts(options.npz));
        Run::rehearse(&LocalDisk, options.folder, inputs, options.chunk, parts, options.existing)
    }

    /// Predicts, writes all files, and returns the errors against the exact solution.
    pub fn run(&self, model: &mut dyn FlowModel, options: Options) -> Result<Metrics> {
        let inputs = self.identity(&options);
        let parts = self.parts(options.npz);
        let points = parts.iter().map(|part| part.points).sum();
        let mut run = Run::open(LocalDisk, options.folder, inputs, options.chunk, parts, options.existing)?;

        let progress = Progress::new(points, run.done());
        let flow = Flow::new(&self.case);
        for place in &self.places {
            progress.begin(place.kind.name());
            let mut predict = |range: std::ops::Range<u64>| {
                let points = place.mesh.points()[range.start as usize..range.end as usize].to_vec();
                let mut fields = model.predict(place.kind, &points)?;
                fields.extend(place.kind.exact(&flow, &points));
                Ok(Chunk { points, fields })
            };
            run.write_part(place.kind.name(), &mut predict, &mut |points| progress.add(points))?;
        }
        progress.finish();
        run.finish()?;
        let (metrics, made) = self.summarise(model.name(), options.folder, options.npz)?;
        run.conclude(made)?;
        Ok(metrics)
    }

    /// What is made from the finished files: pictures, `metrics.json`, `.npz`; returns the names too.
    fn summarise(&self, model: &str, folder: &Path, npz: bool) -> Result<(Metrics, Vec<String>)> {
        let [surface, slice] = &self.places;
        let (on_surface, on_slice) = (Results::read(folder, surface)?, Results::read(folder, slice)?);
        let (mut metrics, mut made) = (Metrics::new(), Vec::new());
        for (place, results) in [(surface, &on_surface), (slice, &on_slice)] {
            for (field, predicted, exact) in results.pairs() {
                let mut error = FieldError::default();
                error.add(predicted, exact)?;
                metrics.insert(format!("{}_{}", place.kind.name(), field.name), error.metrics());
            }
            if npz {
                let name = |extension: &str| format!("{}.{extension}", place.kind.name());
                let (source, npz) = (folder.join(name("safetensors")), folder.join(name("npz")));
                let points = place.mesh.points().len() as u64;
                write_npz(&LocalDisk, &source, &npz, points, &written_fields(place.kind))?;
                made.push(name("npz"));
            }
        }
        let (body, plane) = ((&surface.mesh, &on_surface), (&self.slice, &on_slice));
        let files = [
            ("surface.png", pictures::surface(&self.case, model, &surface.mesh, &on_surface)?),
            ("slice.png", pictures::slice(&self.case, model, &self.slice, &surface.mesh, &on_slice)?),
            ("flow.png", pictures::overview(&self.case, model, body, plane, &metrics)?),
            ("metrics.json", serde_json::to_vec_pretty(&metrics)?),
        ];
        for (name, bytes) in files {
            write_whole(&LocalDisk, &folder.join(name), &bytes)?;
            made.push(name.to_string());
        }
        Ok((metrics, made))
    }
}

/// The predicted fields, then the exact ones under `<name>_exact`.
fn written_fields(kind: PlaceKind) -> Vec<FieldSpec> {
    let exact =
        kind.fields().into_iter().map(|field| FieldSpec::new(format!("{}_exact", field.name), field.components));
    kind.fields().into_iter().chain(exact).collect()
}

/// The fields of a finished place.
struct Results {
    fields: Vec<FieldSpec>,
    /// In the order of [`written_fields`].
    values: Vec<Vec<f32>>,
}

impl Results {
    fn read(folder: &Path, place: &Place) -> Result<Self> {
        let path = folder.join(place.kind.name()).with_extension("safetensors");
        let tensors = safetensors::load(&path, &Device::Cpu).with_context(|| path.display().to_string())?;
        let values = |field: FieldSpec| {
            let tensor = tensors.get(&field.name).with_context(|| format!("'{}' is missing", field.name))?;
            let values = tensor.flatten_all()?.to_vec1::<f32>()?;
            let (expected, got) = (place.mesh.points().len() * field.components, values.len());
            ensure!(got == expected, "'{}' holds {got} values, expected {expected}", field.name);
            Ok(values)
        };
        let values = written_fields(place.kind).into_iter().map(values).collect::<Result<_>>();
        Ok(Self { fields: place.kind.fields(), values: values.with_context(|| path.display().to_string())? })
    }

    /// Every field, predicted and exact.
    fn pairs(&self) -> impl Iterator<Item = (&FieldSpec, &[f32], &[f32])> {
        let (predicted, exact) = self.values.split_at(self.fields.len());
        self.fields
            .iter()
            .zip(predicted)
            .zip(exact)
            .map(|((field, predicted), exact)| (field, predicted.as_slice(), exact.as_slice()))
    }
}

#[cfg(test)]
mod tests;
