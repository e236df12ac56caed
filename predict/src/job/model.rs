//! What predicts.

use std::fs;
use std::path::Path;

use anyhow::{Context, Error, Result, ensure};
use candle_mixed_attention::models::ab_upt::{EncodedBody, Predictor, PredictorInput};

use super::together::Together;
use crate::output::{Crew, LocalDisk};

/// Something that knows the fields of domains at any point.
pub(crate) trait FlowModel {
    /// The fields of a domain at some points, in the order of the domain and in physical units. `first` is the index of
    /// the first of the points in a longer list, for errors.
    fn predict(&mut self, domain: &str, first: u64, points: &[[f32; 3]]) -> Result<Vec<Vec<f32>>>;

    /// The same on each of several devices, which work at the same time; none where there is one.
    fn on_each_device(&self) -> Vec<Box<dyn FlowModel + Send>> {
        Vec::new()
    }
}

/// The first so many fields of a domain at any number of points, predicted a chunk of them at a time.
pub(crate) fn predict_all(
    model: &mut dyn FlowModel,
    domain: &str,
    fields: usize,
    points: &[[f32; 3]],
    chunk: u64,
) -> Result<Vec<Vec<f32>>> {
    let mut all = vec![Vec::new(); fields];
    let chunk = usize::try_from(chunk).unwrap_or(usize::MAX).max(1);
    let mut first = 0;
    for points in points.chunks(chunk) {
        let predicted = model.predict(domain, first, points)?;
        all.iter_mut().zip(predicted).for_each(|(values, predicted)| values.extend(predicted));
        first += points.len() as u64;
    }
    Ok(all)
}

/// What several devices divide among themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Division {
    /// Each predicts other points, with all anchors.
    Points,
    /// All predict the same points, each with the keys of some of the anchors.
    Anchors,
}

/// A network, and what it reads of a body.
pub(crate) struct Body {
    /// The network on each device.
    predictors: Vec<Predictor>,
    division: Division,
    draws: usize,
    /// The same body with each draw of anchors, where this process reads it.
    inputs: Vec<PredictorInput>,
}

impl Body {
    /// A body with at least one draw of anchors, for a network on one or more devices.
    pub(crate) fn new(
        predictors: Vec<Predictor>,
        division: Division,
        first: PredictorInput,
        others: impl IntoIterator<Item = PredictorInput>,
    ) -> Self {
        let inputs: Vec<_> = std::iter::once(first).chain(others).collect();
        Self { predictors, division, draws: inputs.len(), inputs }
    }

    /// A body that another process reads, with so many draws of anchors.
    pub(crate) fn of_another_process(predictors: Vec<Predictor>, division: Division, draws: usize) -> Self {
        Self { predictors, division, draws, inputs: Vec::new() }
    }

    /// The network on each device.
    pub(crate) fn predictors(&self) -> &[Predictor] {
        &self.predictors
    }

    /// How often anchors were drawn.
    pub(crate) fn draws(&self) -> usize {
        self.draws
    }

    /// Lets the network read the body, or takes what the process that leads the crew has read.
    pub(crate) fn encode(&self, crew: &mut dyn Crew<LocalDisk>) -> Result<Encoded> {
        let (first, others) = match self.division {
            Division::Points => self.predictors.split_at(1.min(self.predictors.len())),
            Division::Anchors => (&self.predictors[..], &[][..]),
        };
        ensure!(!first.is_empty(), "no device is left");
        self.settle()?;
        let (together, joined) = Together::join(first)?;
        let name = |draw: usize, device: usize| format!("body_{draw}_{device}.safetensors");
        let mut draws = Vec::with_capacity(self.draws);
        for (draw, input) in self.inputs.iter().enumerate() {
            let bodies = together.run(&joined, |predictor| Ok(predictor.encode(input)?))?;
            for (device, body) in bodies.iter().enumerate() {
                crew.publish(&LocalDisk, &name(draw, device), &mut || {
                    through_file(|path| Ok(body.save(path)?), |path| fs::read(path))
                })?;
            }
            draws.push(bodies);
        }
        for draw in self.inputs.len()..self.draws {
            let load = |(device, predictor): (usize, &Predictor)| {
                let bytes = crew.receive(&name(draw, device))?;
                let bytes = bytes.context("the process that leads left no encoded body")?;
                through_file(|path| Ok(fs::write(path, &bytes)?), |path: &Path| predictor.load(path))
            };
            draws.push(joined.iter().enumerate().map(load).collect::<Result<_>>()?);
        }
        let mut holders = vec![Holder { together, draws }];
        for predictor in others {
            let (together, joined) = Together::join(std::slice::from_ref(predictor))?;
            let same = |bodies: &Vec<EncodedBody>| {
                let pairs = joined.iter().zip(bodies);
                pairs.map(|(predictor, body)| predictor.with_cache(body.cache().clone())).collect::<Result<_, _>>()
            };
            let draws = holders[0].draws.iter().map(same).collect::<Result<_, _>>()?;
            holders.push(Holder { together, draws });
        }
        self.settle()?;
        Ok(Encoded { holders })
    }

    /// Waits for all that this thread has begun on the devices: on a GPU each thread has a stream of its own, and candle lets
    /// none of them wait for another.
    fn settle(&self) -> Result<()> {
        Ok(self.predictors.iter().try_for_each(|predictor| predictor.model().device().synchronize())?)
    }
}

/// Reads what was written into a file that is gone afterwards.
fn through_file<T, E: Into<Error>>(
    write: impl FnOnce(&Path) -> Result<()>,
    read: impl FnOnce(&Path) -> Result<T, E>,
) -> Result<T> {
    let folder = tempfile::tempdir().context("cannot create a folder for a moment")?;
    let path = folder.path().join("body.safetensors");
    write(&path).with_context(|| format!("cannot write {}", path.display()))?;
    read(&path).map_err(Into::into)
}

/// A body that the network has read, once for each draw of anchors.
#[derive(Debug, Clone)]
pub(crate) struct Encoded {
    /// At least one, each of which can predict on its own.
    holders: Vec<Holder>,
}

/// One device with a body, or several that hold it together.
#[derive(Debug, Clone)]
struct Holder {
    together: Together,
    /// Of each draw of anchors what each device holds.
    draws: Vec<Vec<EncodedBody>>,
}

impl FlowModel for Encoded {
    /// With several draws of anchors: the mean over them, then the standard deviation of each field.
    fn predict(&mut self, domain: &str, first: u64, points: &[[f32; 3]]) -> Result<Vec<Vec<f32>>> {
        let Holder { together, draws: held } = &self.holders[0];
        let mut draws = Vec::with_capacity(held.len());
        for bodies in held {
            let predict = |body: &EncodedBody| Ok(body.predict_from(domain, first, points.as_flattened())?);
            // All devices give the same.
            let predicted = together.run(bodies, predict)?.swap_remove(0);
            let names: Vec<_> = predicted.iter().map(|(name, _)| name.to_string()).collect();
            draws.push(names.iter().map(|name| predicted.values(name)).collect::<Result<Vec<_>, _>>()?);
        }
        if draws.len() == 1 {
            return Ok(draws.swap_remove(0));
        }
        let fields = draws[0].len();
        let (means, spreads): (Vec<_>, Vec<_>) = (0..fields)
            .map(|field| {
                let draws: Vec<_> = draws.iter().map(|fields| fields[field].as_slice()).collect();
                mean_and_spread(&draws)
            })
            .unzip();
        Ok(means.into_iter().chain(spreads).collect())
    }

    fn on_each_device(&self) -> Vec<Box<dyn FlowModel + Send>> {
        let of = |holder: &Holder| -> Box<dyn FlowModel + Send> { Box::new(Self { holders: vec![holder.clone()] }) };
        self.holders.iter().map(of).collect()
    }
}

/// Mean and standard deviation (of a sample) of each value over at least two draws.
fn mean_and_spread(draws: &[&[f32]]) -> (Vec<f32>, Vec<f32>) {
    let count = draws.len() as f64;
    (0..draws[0].len())
        .map(|at| {
            let values = || draws.iter().map(|draw| f64::from(draw[at]));
            let mean = values().sum::<f64>() / count;
            let variance = values().map(|value| (value - mean).powi(2)).sum::<f64>() / (count - 1.0);
            (mean as f32, variance.sqrt() as f32)
        })
        .unzip()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spread_is_the_standard_deviation_of_a_sample() {
        let (mean, spread) = mean_and_spread(&[&[1.0, 5.0], &[2.0, 5.0], &[6.0, 5.0]]);
        assert_eq!(mean, [3.0, 5.0]);
        assert_eq!(spread, [7f32.sqrt(), 0.0]);
    }
}
