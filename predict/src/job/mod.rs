//! A prediction, whoever asked for it: from inputs that were checked to the report.
//!
//! ```text
//! demo ──────┐
//!            ├→ Job: body, places → parts → rehearsal → Run: part after part → report: errors, pictures, .npz
//! own files ─┘
//! ```

mod forces;
mod lines;
mod model;
mod outside;
mod place;
mod report;
mod scans;
mod source;
mod streamlines;
mod team;
mod together;
mod truth;

use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Map, Value};

pub(crate) use forces::FORCES_FILE;
pub(crate) use lines::Line;
pub(crate) use model::{Body, Division, Encoded, FlowModel, predict_all};
pub(crate) use outside::{Border, Outside};
pub(crate) use place::Place;
use place::PlaceModel;
pub(crate) use report::{METRICS_FILE, Report};
pub(crate) use scans::Scans;
pub(crate) use source::{Named, Source};
pub(crate) use streamlines::{MOST_STREAMLINES, Streamlines, obstacle};
use team::Team;
pub(crate) use truth::{Exact, Truth};

use crate::forces::Reference;
use crate::interrupt;
use crate::metrics::Metrics;
use crate::output::{Chunk, Codec, Existing, Leaving, LocalCrew, LocalDisk, Part, Predict, Request, Run};
use crate::plan;
use crate::progress::{Progress, Turn, summary};
use crate::terminal::{remark, say};

/// Inputs that were checked.
pub(crate) struct Job {
    /// All that the result depends on, so that no run is resumed as another.
    pub(crate) identity: Map<String, Value>,
    /// What else says how the result was made: files and options.
    pub(crate) origin: Map<String, Value>,
    /// What is predicted: a network and a body in a flow.
    pub(crate) body: Body,
    /// Where it is predicted, each a part of the result.
    pub(crate) places: Vec<Place>,
    /// Where the fields are told along lines.
    pub(crate) lines: Vec<Line>,
    /// Lines along the velocity.
    pub(crate) streamlines: Vec<Streamlines>,
    /// What makes coefficients of the forces on its wall.
    pub(crate) reference: Reference,
    /// How the results are drawn.
    pub(crate) pictures: Box<dyn Pictures>,
}

/// What to do with the results.
#[derive(Debug, Clone)]
pub(crate) struct Settings<'a> {
    /// Where they go.
    pub(crate) folder: &'a Path,
    /// What to do with earlier ones.
    pub(crate) existing: Existing,
    /// Points predicted at once.
    pub(crate) chunk: u64,
    /// Whether to write `.npz` files too.
    pub(crate) npz: bool,
    /// How meshes are compressed.
    pub(crate) codec: Option<Codec>,
    /// Whether to stop before anything is computed.
    pub(crate) dry_run: bool,
    /// Which of many runs this is.
    pub(crate) turn: Turn,
}

/// Draws finished results.
pub(crate) trait Pictures {
    /// Names and contents of the files. A picture may ask the model for more points.
    fn draw(
        &self,
        places: &mut [Place],
        model: &mut dyn FlowModel,
        settings: &Settings,
        metrics: &Metrics,
    ) -> Result<Vec<(String, Vec<u8>)>>;
}

/// All arrays of a place at some of its points.
pub(crate) fn predict_range(place: &mut Place, model: &mut dyn FlowModel, range: Range<u64>) -> Result<Chunk> {
    PlaceModel::one(place, model).begin(range)?.context("one model answers at once")
}

impl Job {
    /// Predicts, writes all files and prints the errors; nothing of that in a dry run. There is no report where others
    /// finish.
    pub(crate) fn run(&mut self, settings: &Settings, mut crew: LocalCrew) -> Result<Option<Report>> {
        if crew.leads() || !crew.has_work() {
            let space = Run::rehearse(&LocalDisk, self.request(settings), crew.as_ref())?;
            if settings.dry_run {
                plan::print(&self.parts(settings), space);
            }
        }
        if settings.dry_run {
            return Ok(None);
        }
        if !crew.has_work() {
            say(format_args!("results are in {}", settings.folder.display()));
            return Ok(None);
        }
        interrupt::explain(settings.folder)?;
        // A body that cannot be encoded leaves the folder as it is.
        let mut model = self.body.encode(crew.as_mut())?;
        let Some(report) = self.run_with(&mut model, settings, crew)? else { return Ok(None) };
        for (field, error) in &report.metrics {
            say(format_args!("{field:18} {error}"));
        }
        if let Some(forces) = &report.forces {
            forces.print();
        }
        say(format_args!("results in {}", settings.folder.display()));
        Ok(Some(report))
    }

    /// As [`run`](Self::run) with another model, and without a word about the results.
    pub(crate) fn run_with(
        &mut self,
        model: &mut dyn FlowModel,
        settings: &Settings,
        crew: LocalCrew,
    ) -> Result<Option<Report>> {
        let points = self.places.iter().map(|place| place.source.input.len()).sum();
        let mut run = Run::open(LocalDisk, self.request(settings), crew)?;
        let progress = Progress::new(&settings.turn, points, run.done());
        let models = model.on_each_device();
        let team = (models.len() > 1).then(|| Team::new(models));
        let finishes = loop {
            for place in &mut self.places {
                progress.begin(&place.name);
                let name = place.name.clone();
                let mut predictor = match &team {
                    Some(team) => PlaceModel::many(place, team),
                    None => PlaceModel::one(place, model),
                };
                run.write_part(&name, &mut predictor, &mut |points| progress.add(points))?;
            }
            match run.leave(&mut |points| progress.add(points))? {
                Leaving::Missing(points) => {
                    remark(format_args!("note: {points} points were left by a process that has gone"));
                }
                Leaving::Last => break true,
                Leaving::Others => break false,
            }
        };
        drop(team);
        let (points, seconds) = progress.finish();
        remark(summary(points, seconds));
        if !finishes {
            say(format_args!("others finish the results in {}", settings.folder.display()));
            return Ok(None);
        }
        run.predicted(points, seconds);
        run.finish()?;
        let report = self.report(model, settings, &mut run)?;
        run.conclude()?;
        Ok(Some(report))
    }

    fn parts(&self, settings: &Settings) -> Vec<Part> {
        let part = |place: &Place| place.part(self.body.draws(), settings.npz, settings.codec);
        self.places.iter().map(part).collect()
    }

    fn request(&self, settings: &Settings) -> Request {
        Request {
            folder: settings.folder.to_path_buf(),
            inputs: self.identity.clone(),
            origin: self.origin.clone(),
            chunk: settings.chunk,
            parts: self.parts(settings),
            existing: settings.existing,
        }
    }
}
