//! What is made from the finished files: errors, pictures, `.npz`.

use anyhow::{Context, Result};

use super::{FlowModel, Job, Settings};
use crate::metrics::Metrics;
use crate::output::{LocalDisk, Run, write_npz, write_whole};

impl Job {
    /// Writes `metrics.json` where true fields are known, and pictures; returns the errors. Files are announced to the run
    /// before they are made.
    pub(super) fn report(
        &mut self,
        model: &mut dyn FlowModel,
        settings: &Settings,
        run: &mut Run<LocalDisk>,
    ) -> Result<Metrics> {
        let mut metrics = Metrics::new();
        let draws = self.body.draws();
        for place in &mut self.places {
            let name = |extension: &str| format!("{}.{extension}", place.name);
            let results = settings.folder.join(name("safetensors"));
            if settings.npz {
                run.announce([name("npz")])?;
                let npz = settings.folder.join(name("npz"));
                write_npz(&LocalDisk, &results, &npz, place.source.input.len(), &place.written(draws))?;
            }
            let Some(truth) = &mut place.truth else { continue };
            for field in &place.domain.fields {
                if let Some(error) = truth.measure(&field.name, &results, settings.chunk)? {
                    metrics.insert(format!("{}_{}", place.name, field.name), error.metrics());
                }
            }
        }
        let drawn = self.pictures.draw(&mut self.places, model, settings, &metrics);
        let mut files = drawn.context("pictures")?;
        if !metrics.is_empty() {
            files.push(("metrics.json".to_string(), serde_json::to_vec_pretty(&metrics)?));
        }
        run.announce(files.iter().map(|(name, _)| name.clone()))?;
        for (name, bytes) in files {
            write_whole(&LocalDisk, &settings.folder.join(&name), &bytes)?;
        }
        Ok(metrics)
    }
}
