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
mod place;
mod report;
mod source;
mod truth;

use std::path::Path;

use anyhow::Result;
use serde_json::{Map, Value};

pub(crate) use lines::Line;
#[cfg(test)]
pub(crate) use model::Encoded;
pub(crate) use model::{Body, FlowModel};
pub(crate) use place::Place;
pub(crate) use report::Report;
pub(crate) use source::{Named, Source};
pub(crate) use truth::{Exact, Truth};

use crate::forces::Reference;
use crate::interrupt;
use crate::metrics::Metrics;
use crate::output::{Existing, LocalDisk, Part, Request, Run};
use crate::plan;
use crate::progress::Progress;
use crate::terminal::{remark, say};

/// Inputs that were checked.
pub(crate) struct Job {
    /// All that the result depends on, so that no run is resumed as another.
    pub identity: Map<String, Value>,
    /// What is predicted: a network and a body in a flow.
    pub body: Body,
    /// Where it is predicted, each a part of the result.
    pub places: Vec<Place>,
    /// Where the fields are told along lines.
    pub lines: Vec<Line>,
    /// What makes coefficients of the forces on its wall.
    pub reference: Reference,
    /// How the results are drawn.
    pub pictures: Box<dyn Pictures>,
}

/// What to do with the results.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings<'a> {
    /// Where they go.
    pub folder: &'a Path,
    /// What to do with earlier ones.
    pub existing: Existing,
    /// Points predicted at once.
    pub chunk: u64,
    /// Whether to write `.npz` files too.
    pub npz: bool,
    /// Whether to stop before anything is computed.
    pub dry_run: bool,
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

impl Job {
    /// Predicts, writes all files and prints the errors; nothing of that in a dry run.
    pub(crate) fn run(&mut self, settings: &Settings) -> Result<Option<Report>> {
        let space = Run::rehearse(&LocalDisk, self.request(settings))?;
        if settings.dry_run {
            plan::print(&self.parts(settings.npz), space);
            return Ok(None);
        }
        interrupt::explain(settings.folder)?;
        // A body that cannot be encoded leaves the folder as it is.
        let mut model = self.body.encode()?;
        let report = self.run_with(&mut model, settings)?;
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
    pub(crate) fn run_with(&mut self, model: &mut dyn FlowModel, settings: &Settings) -> Result<Report> {
        let points = self.places.iter().map(|place| place.source.input.len()).sum();
        let mut run = Run::open(LocalDisk, self.request(settings))?;
        let progress = Progress::new(points, run.done());
        for place in &mut self.places {
            progress.begin(&place.name);
            let name = place.name.clone();
            run.write_part(&name, &mut |range| place.predict(model, range), &mut |points| progress.add(points))?;
        }
        let summary = progress.finish();
        run.finish()?;
        remark(summary);
        let report = self.report(model, settings, &mut run)?;
        run.conclude()?;
        Ok(report)
    }

    fn parts(&self, npz: bool) -> Vec<Part> {
        self.places.iter().map(|place| place.part(self.body.draws(), npz)).collect()
    }

    fn request(&self, settings: &Settings) -> Request {
        Request {
            folder: settings.folder.to_path_buf(),
            inputs: self.identity.clone(),
            chunk: settings.chunk,
            parts: self.parts(settings.npz),
            existing: settings.existing,
        }
    }
}
