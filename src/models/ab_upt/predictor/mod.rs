//! Physical units in, physical units out: a network together with the statistics of its data.
//!
//! ```text
//! geometry, conditions, anchors ─ normalise ─ first pass ─ EncodedBody (keys and values of every block)
//! query points ─ normalise ─ cached pass, chunk by chunk ─ denormalise ─ fields
//! ```

mod body;
mod chunks;
mod fields;
mod flat;
mod input;
mod sampling;

use std::path::Path;
use std::sync::Arc;

use candle_core::Tensor;

pub use body::EncodedBody;
pub use chunks::Chunks;
pub use fields::PredictedFields;
pub use input::PredictorInput;
pub use sampling::{sample_indices, sample_points};

use super::cache::AbUptCache;
use super::config::{AbUptConfig, DomainConfig};
use super::error::AbUptError;
use super::model::AbUpt;
use crate::models::{Normalisation, NormalisationError};

/// Predicts fields around bodies in physical units. Cheap to clone.
///
/// [`encode`](Self::encode) reads geometry, conditions and anchors once; the [`EncodedBody`] that it returns predicts the
/// fields at any number of points.
///
/// ```no_run
/// use candle_core::{DType, Device};
/// use candle_mixed_attention::models::Normalisation;
/// use candle_mixed_attention::models::ab_upt::{AbUptConfig, Checkpoint, Predictor, PredictorInput, sample_points};
///
/// let config = AbUptConfig::read("model.json")?;
/// let model = Checkpoint::open("model.safetensors")?.load(&config, DType::F32, &Device::Cpu)?;
/// let predictor = Predictor::new(model, &Normalisation::read("model.json")?)?;
///
/// # let (surface, volume): (Vec<[f32; 3]>, Vec<[f32; 3]>) = (vec![], vec![]);
/// let geometry = sample_points(&surface, 16_384, 0);
/// let supernodes: Vec<u32> = (0..2048).collect(); // the points are in random order already
/// let input = PredictorInput::new()
///     .geometry(geometry.as_flattened(), &supernodes)
///     .condition("speed", &[30.0])
///     .anchors("surface", sample_points(&surface, 2048, 1).as_flattened())
///     .anchors("volume", sample_points(&volume, 2048, 2).as_flattened());
/// let body = predictor.encode(&input)?;
/// for chunk in body.chunks("volume", volume.iter().copied(), 65_536) {
///     let velocity: Vec<f32> = chunk?.values("velocity")?; // three numbers per point
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Predictor {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    model: AbUpt,
    /// Those of the network, in its order.
    statistics: Normalisation,
}

impl Predictor {
    /// Joins a network and the statistics of the data that it was trained on. Statistics of further conditions and fields
    /// are left out.
    ///
    /// # Errors
    /// Statistics for another number of coordinates; a condition or field of the network without statistics, or with
    /// statistics of another width.
    pub fn new(model: AbUpt, statistics: &Normalisation) -> Result<Self, AbUptError> {
        let statistics = Self::statistics_of(model.config(), statistics)?;
        Ok(Self { inner: Arc::new(Inner { model, statistics }) })
    }

    /// The statistics that a network needs, in its order, out of more; checked without its weights.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn statistics_of(config: &AbUptConfig, all: &Normalisation) -> Result<Normalisation, AbUptError> {
        let check = |what: String, expected: usize, got: usize| match got == expected {
            true => Ok(()),
            false => Err(AbUptError::StatisticsWidth { what, expected, got }),
        };
        check("position".to_string(), config.position_dim, all.position.dimensions())?;
        let mut conditions = Vec::with_capacity(config.condition.len());
        for condition in &config.condition {
            let statistics = all.condition(&condition.name)?;
            check(format!("condition '{}'", condition.name), condition.dim, statistics.width())?;
            conditions.push(statistics.clone());
        }
        let mut fields = Vec::new();
        for domain in &config.domains {
            for field in &domain.fields {
                let statistics = all.field(&domain.name, &field.name)?;
                check(format!("field '{}_{}'", domain.name, field.name), field.dim, statistics.width())?;
                fields.push(statistics.clone());
            }
        }
        Ok(Normalisation::new(all.position.clone(), conditions, fields)?)
    }

    /// The network.
    pub fn model(&self) -> &AbUpt {
        &self.inner.model
    }

    /// The statistics of the network's positions, conditions and fields, in the order of the network.
    pub fn statistics(&self) -> &Normalisation {
        &self.inner.statistics
    }

    /// Reads geometry, conditions and anchors: one pass of the network.
    ///
    /// # Errors
    /// Positions that are not finite or outside the box of the statistics, each error with the index of the point; a
    /// geometry or condition that is missing or not expected; unknown domains; no anchors; a predicted value that is not
    /// finite.
    pub fn encode(&self, input: &PredictorInput) -> Result<EncodedBody, AbUptError> {
        let output = self.model().forward(&input.normalise(self)?)?;
        let mut anchors = Vec::new();
        for domain in input.anchor_domains() {
            let domain = self.domain("anchors", domain)?;
            let field = |name: &str| output.fields.at_anchors(&domain.name, name)?.squeeze(0);
            anchors.push(PredictedFields::denormalise(self, domain, &anchors_of(&domain.name), 0, field)?);
        }
        Ok(EncodedBody::new(self.clone(), output.cache, anchors))
    }

    /// Reads a file that [`EncodedBody::save`] wrote, here or elsewhere.
    ///
    /// # Errors
    /// A file that cannot be read, is truncated or not such a file; the cache of another network or dtype; other
    /// statistics.
    pub fn load(&self, path: impl AsRef<Path>) -> Result<EncodedBody, AbUptError> {
        let (cache, statistics) = AbUptCache::read(path.as_ref(), self.model().device())?;
        // The weights come first: with another network, other statistics are no surprise.
        self.model().check_cache(&cache)?;
        match statistics {
            Some(statistics) if &statistics == self.statistics() => self.with_cache(cache),
            Some(_) => Err(AbUptError::CacheStatistics { got: "others" }),
            None => Err(AbUptError::CacheStatistics { got: "none" }),
        }
    }

    /// Goes on from a cache of [`AbUpt::forward`], whose input must have been normalised by the same statistics.
    ///
    /// # Errors
    /// The cache of another network or dtype, or of several samples.
    pub fn with_cache(&self, cache: AbUptCache) -> Result<EncodedBody, AbUptError> {
        self.model().check_cache(&cache)?;
        if cache.batch() != 1 {
            return Err(AbUptError::batch("cache", 1, cache.batch()));
        }
        let cache = cache.to_device(self.model().device())?;
        Ok(EncodedBody::new(self.clone(), cache, Vec::new()))
    }

    /// A domain of the network by its name. `role` is what it was named for, for the error.
    fn domain(&self, role: &'static str, name: &str) -> Result<&DomainConfig, AbUptError> {
        let config = self.model().config();
        let found = config.domains.iter().find(|domain| domain.name == name);
        found.ok_or_else(|| AbUptError::UnknownDomain { role, domain: name.to_string(), known: config.domain_names() })
    }

    /// Refuses points of another number of coordinates than the network's.
    fn check_coordinates(&self, domain: &str, got: usize) -> Result<(), NormalisationError> {
        let expected = self.statistics().position.dimensions();
        if got == expected {
            return Ok(());
        }
        let (argument, got) = (queries_of(domain), got.to_string());
        Err(NormalisationError::Width { argument, row: "point", expected, got })
    }

    /// Physical positions as `[1, points, position_dim]` in the units of the network. `first` is the index of the first
    /// point, for errors.
    fn positions<T: Copy + Into<f64>>(
        &self,
        argument: &str,
        first: u64,
        positions: &[T],
    ) -> Result<Tensor, AbUptError> {
        let statistics = &self.statistics().position;
        let normalised = statistics.normalise(argument, positions).map_err(|error| error.counted_from(first))?;
        let (width, device) = (statistics.dimensions(), self.model().device());
        Ok(Tensor::from_slice(&normalised, (1, normalised.len() / width, width), device)?)
    }
}

/// The name of anchor positions in errors.
fn anchors_of(domain: &str) -> String {
    format!("anchors of '{domain}'")
}

/// The name of query positions in errors.
fn queries_of(domain: &str) -> String {
    format!("queries of '{domain}'")
}
