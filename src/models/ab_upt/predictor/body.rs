//! A body that was read, and its fields anywhere.

use std::ops::ControlFlow;
use std::path::Path;

use candle_core::Result as CandleResult;

use super::chunks::Chunks;
use super::fields::PredictedFields;
use super::{Predictor, queries_of};
use crate::models::ab_upt::cache::AbUptCache;
use crate::models::ab_upt::error::AbUptError;

/// One body in its conditions, encoded: what the network needs to predict the fields at any point. Cheap to clone.
///
/// Each point is predicted from its own position alone, so that any way of cutting points into chunks gives the same
/// fields up to rounding.
#[derive(Debug, Clone)]
pub struct EncodedBody {
    predictor: Predictor,
    cache: AbUptCache,
    anchors: Vec<PredictedFields>,
}

impl EncodedBody {
    pub(super) fn new(predictor: Predictor, cache: AbUptCache, anchors: Vec<PredictedFields>) -> Self {
        Self { predictor, cache, anchors }
    }

    /// The predictor that encoded the body or loaded it.
    pub fn predictor(&self) -> &Predictor {
        &self.predictor
    }

    /// Keys and values of every block.
    pub fn cache(&self) -> &AbUptCache {
        &self.cache
    }

    /// The fields at the anchors of a domain, in the order in which the anchors were given.
    ///
    /// # Errors
    /// The domain had no anchors, or the body was loaded from a file, which does not hold them.
    pub fn at_anchors(&self, domain: &str) -> Result<&PredictedFields, AbUptError> {
        let found = self.anchors.iter().find(|fields| fields.domain() == domain);
        let known = || self.anchors.iter().map(|fields| fields.domain().to_string()).collect();
        found.ok_or_else(|| AbUptError::UnknownDomain { role: "anchors", domain: domain.to_string(), known: known() })
    }

    /// The fields at points of a domain, in one pass. Positions are numbers in physical units, point after point.
    ///
    /// ```
    /// # use candle_mixed_attention::models::ab_upt::EncodedBody;
    /// # fn example(body: &EncodedBody) -> Result<(), Box<dyn std::error::Error>> {
    /// let points = [[0.1f32, 0.2, 0.3], [0.4, 0.5, 0.6]];
    /// let fields = body.predict("volume", points.as_flattened())?;
    /// println!("{}", fields.get("velocity")?); // [2, 3]
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// An unknown domain; a position that is not finite or outside the box of the statistics, or a predicted value that is
    /// not finite, named by the index of its point.
    pub fn predict<T: Copy + Into<f64>>(&self, domain: &str, positions: &[T]) -> Result<PredictedFields, AbUptError> {
        self.predict_from(domain, 0, positions)
    }

    /// As [`predict`](Self::predict) for points of a longer list: `first` is the index there of the first of them, which
    /// errors and the result count from.
    ///
    /// # Errors
    /// As [`predict`](Self::predict); more points than 64 bits count.
    pub fn predict_from<T: Copy + Into<f64>>(
        &self,
        domain: &str,
        first: u64,
        positions: &[T],
    ) -> Result<PredictedFields, AbUptError> {
        let predictor = &self.predictor;
        let config = predictor.domain("queries", domain)?;
        let points = positions.len() / predictor.statistics().position.dimensions().max(1);
        if first.checked_add(points as u64).is_none() {
            return Err(AbUptError::TooManyPoints { first, points });
        }
        let argument = queries_of(domain);
        let positions = predictor.positions(&argument, first, positions)?;
        let fields = predictor.model().forward_from_cache([(domain, positions)], &self.cache)?;
        let field = |name: &str| -> CandleResult<_> { fields.at_queries(domain, name)?.squeeze(0) };
        PredictedFields::denormalise(predictor, config, &argument, first, field)
    }

    /// The fields at any number of points, `chunk` of them at a time: an iterator that holds one chunk in memory. It is
    /// cancelled by dropping it, and ends after an error.
    ///
    /// Larger chunks are faster up to some ten thousand points.
    pub fn chunks<'a, T: Copy + Into<f64>, const N: usize, I: IntoIterator<Item = [T; N]>>(
        &'a self,
        domain: &'a str,
        points: I,
        chunk: usize,
    ) -> Chunks<'a, I::IntoIter> {
        Chunks::new(self, domain, points.into_iter(), chunk)
    }

    /// Calls `consume` with chunk after chunk of the fields at any number of points, until it breaks; returns what it
    /// broke with, if it did.
    ///
    /// ```
    /// use std::ops::ControlFlow;
    /// # use std::sync::atomic::{AtomicBool, Ordering};
    /// # use candle_mixed_attention::models::ab_upt::EncodedBody;
    /// # fn example(body: &EncodedBody) -> Result<(), Box<dyn std::error::Error>> {
    /// # let points: Vec<[f32; 3]> = Vec::new();
    /// # static CANCELLED: AtomicBool = AtomicBool::new(false);
    /// let broke = body.for_each_chunk("volume", points, 65_536, |fields| {
    ///     println!("points {:?} are done", fields.points());
    ///     match CANCELLED.load(Ordering::Relaxed) {
    ///         true => ControlFlow::Break("cancelled"),
    ///         false => ControlFlow::Continue(()),
    ///     }
    /// })?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`predict`](Self::predict), or a chunk of 0 points.
    pub fn for_each_chunk<T: Copy + Into<f64>, const N: usize, B>(
        &self,
        domain: &str,
        points: impl IntoIterator<Item = [T; N]>,
        chunk: usize,
        mut consume: impl FnMut(PredictedFields) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B>, AbUptError> {
        for fields in self.chunks(domain, points, chunk) {
            if let ControlFlow::Break(reason) = consume(fields?) {
                return Ok(ControlFlow::Break(reason));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Writes the body to a safetensors file, for [`Predictor::load`] here or on another machine. The file appears under
    /// its name only when it is complete.
    ///
    /// It holds what [`AbUptCache::save_safetensors`] writes, and the statistics.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), AbUptError> {
        Ok(self.cache.write(path.as_ref(), Some(self.predictor.statistics()))?)
    }
}
