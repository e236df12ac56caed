//! What is made from the finished files: errors, pictures, `.npz`.

use anyhow::{Context, Result};
use candle_mixed_attention::models::ab_upt::EncodedBody;

use super::{Setup, pictures};
use crate::args::Arguments;
use crate::metrics::Metrics;
use crate::output::{LocalDisk, write_npz, write_whole};

/// Writes `metrics.json` where true fields are known, and for each field `<domain>_<field>.png`.
pub fn write(setup: &mut Setup, body: &EncodedBody, arguments: &Arguments) -> Result<Metrics> {
    let (output, chunk) = (&arguments.output, arguments.compute.chunk.get());
    let folder = &output.out;
    let mut metrics = Metrics::new();
    for place in &mut setup.places {
        let file = |extension: &str| folder.join(format!("{}.{extension}", place.domain.name));
        let results = file("safetensors");
        if output.npz {
            write_npz(&LocalDisk, &results, &file("npz"), place.source.input.len(), &place.fields())?;
        }
        if let Some(truth) = &mut place.truth {
            truth.measure(&results, chunk, &mut metrics)?;
        }
    }
    if !metrics.is_empty() {
        write_whole(&LocalDisk, &folder.join("metrics.json"), &serde_json::to_vec_pretty(&metrics)?)?;
    }
    for (name, picture) in pictures::draw(setup, body, arguments).context("pictures")? {
        write_whole(&LocalDisk, &folder.join(name), &picture)?;
    }
    Ok(metrics)
}
