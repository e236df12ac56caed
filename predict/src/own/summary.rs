//! What is made from the finished files: errors, pictures, `.npz`.

use anyhow::{Context, Result};
use candle_mixed_attention::models::ab_upt::EncodedBody;

use super::{Setup, pictures};
use crate::args::Arguments;
use crate::metrics::Metrics;
use crate::output::{LocalDisk, write_npz, write_whole};

/// Writes `metrics.json` where true fields are known, and for each field `<domain>_<field>.png`; returns the errors and
/// the names of all files.
pub fn write(setup: &mut Setup, body: &EncodedBody, arguments: &Arguments) -> Result<(Metrics, Vec<String>)> {
    let (output, chunk) = (&arguments.output, arguments.compute.chunk.get());
    let (mut metrics, mut made) = (Metrics::new(), Vec::new());
    for place in &mut setup.places {
        let name = |extension: &str| format!("{}.{extension}", place.domain.name);
        let results = output.out.join(name("safetensors"));
        if output.npz {
            let npz = output.out.join(name("npz"));
            write_npz(&LocalDisk, &results, &npz, place.source.input.len(), &place.fields())?;
            made.push(name("npz"));
        }
        if let Some(truth) = &mut place.truth {
            truth.measure(&results, chunk, &mut metrics)?;
        }
    }
    let mut files = pictures::draw(setup, body, arguments).context("pictures")?;
    if !metrics.is_empty() {
        files.push(("metrics.json".to_string(), serde_json::to_vec_pretty(&metrics)?));
    }
    for (name, bytes) in files {
        write_whole(&LocalDisk, &output.out.join(&name), &bytes)?;
        made.push(name);
    }
    Ok((metrics, made))
}
