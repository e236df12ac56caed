//! Many points, a chunk of them at a time.

use super::{EncodedBody, PredictedFields};
use crate::models::ab_upt::error::AbUptError;

/// Predicts chunk after chunk; made by [`EncodedBody::chunks`].
#[derive(Debug)]
pub struct Chunks<'a, I> {
    body: &'a EncodedBody,
    domain: &'a str,
    points: I,
    /// Points of a chunk.
    chunk: usize,
    /// Index of the next point.
    next: u64,
    failed: bool,
}

impl<'a, I> Chunks<'a, I> {
    pub(super) fn new(body: &'a EncodedBody, domain: &'a str, points: I, chunk: usize) -> Self {
        Self { body, domain, points, chunk, next: 0, failed: false }
    }
}

impl<T: Copy + Into<f64>, const N: usize, I: Iterator<Item = [T; N]>> Chunks<'_, I> {
    fn predict_next(&mut self) -> Result<Option<PredictedFields>, AbUptError> {
        if self.chunk == 0 {
            return Err(AbUptError::EmptyChunk);
        }
        self.body.predictor().check_coordinates(self.domain, N)?;
        let points: Vec<[T; N]> = self.points.by_ref().take(self.chunk).collect();
        if points.is_empty() {
            return Ok(None);
        }
        let fields = self.body.predict_from(self.domain, self.next, points.as_flattened())?;
        self.next += points.len() as u64;
        Ok(Some(fields))
    }
}

impl<T: Copy + Into<f64>, const N: usize, I: Iterator<Item = [T; N]>> Iterator for Chunks<'_, I> {
    type Item = Result<PredictedFields, AbUptError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let fields = self.predict_next();
        self.failed = fields.is_err();
        fields.transpose()
    }
}
