//! What is made from the finished files: errors, forces, pictures, `.npz`.

use anyhow::{Context, Result};

use super::forces::{FORCES_FILE, Forces};
use super::{FlowModel, Job, Place, Settings};
use crate::forces::areas_of_vertices;
use crate::metrics::Metrics;
use crate::output::{LocalDisk, Run, write_npz, write_whole};

/// The name of the file of the errors.
pub(crate) const METRICS_FILE: &str = "metrics.json";

/// What is known about finished results.
pub(crate) struct Report {
    /// Errors where the truth is known.
    pub metrics: Metrics,
    /// Forces on the wall, if there is one.
    pub forces: Option<Forces>,
}

impl Job {
    /// Writes `forces.json`, `metrics.json` where true fields are known, pictures and lines; returns what they say. Files are
    /// announced to the run before they are made.
    pub(super) fn report(
        &mut self,
        model: &mut dyn FlowModel,
        settings: &Settings,
        run: &mut Run<LocalDisk>,
    ) -> Result<Report> {
        let (mut metrics, mut on_wall) = (Metrics::new(), None);
        let draws = self.body.draws();
        for place in &mut self.places {
            let name = |extension: &str| format!("{}.{extension}", place.name);
            let results = settings.folder.join(name("safetensors"));
            if settings.npz {
                run.announce([name("npz")])?;
                let npz = settings.folder.join(name("npz"));
                write_npz(&LocalDisk, &results, &npz, place.source.input.len(), &place.written(draws))?;
            }
            if let Some(forces) = Forces::on(place, self.reference, &results)? {
                on_wall = Some(forces);
            }
            let faces = place.source.input.mesh().filter(|mesh| mesh.faces().next().is_some());
            let areas = faces.map(areas_of_vertices);
            let dropped = place.source.drops();
            let input = &mut place.source.input;
            let mut weights = |range| Place::sizes(input, areas.as_deref(), range);
            let Some(truth) = &mut place.truth else { continue };
            for field in &place.domain.fields {
                if let Some(error) = truth.measure(&field.name, &results, settings.chunk, dropped, &mut weights)? {
                    metrics.insert(format!("{}_{}", place.name, field.name), error.metrics());
                }
            }
        }
        let drawn = self.pictures.draw(&mut self.places, model, settings, &metrics);
        let mut files = drawn.context("pictures")?;
        for line in &self.lines {
            files.extend(line.files(model, settings.chunk).with_context(|| line.name.clone())?);
        }
        for lines in &self.streamlines {
            files.push(lines.file(model, settings.codec, settings.chunk).with_context(|| lines.name.clone())?);
        }
        if let Some(forces) = &on_wall {
            files.push((FORCES_FILE.to_string(), serde_json::to_vec_pretty(forces)?));
        }
        if !metrics.is_empty() {
            files.push((METRICS_FILE.to_string(), serde_json::to_vec_pretty(&metrics)?));
        }
        run.announce(files.iter().map(|(name, _)| name.clone()))?;
        for (name, bytes) in files {
            write_whole(&LocalDisk, &settings.folder.join(&name), &bytes)?;
        }
        Ok(Report { metrics, forces: on_wall })
    }
}
