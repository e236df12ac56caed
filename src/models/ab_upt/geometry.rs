//! The geometry that a network reads: points of one or more samples, some of which are supernodes.

use std::sync::Arc;

use candle_core::{DType, Device, Result, Tensor};

use super::error::AbUptError;
use super::finite::check_finite;
use crate::ops::to_dtype;
use crate::transfer::to_device;

/// Points of one or more samples, and the supernodes among them. Cheap to clone.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use candle_mixed_attention::models::ab_upt::Geometry;
///
/// let points = Tensor::rand(0f32, 1000., (500, 3), &Device::Cpu)?;
/// let geometry = Geometry::new(&points, &[0, 7, 123, 499])?;
/// assert_eq!((geometry.batch(), geometry.supernodes_per_sample()), (1, 4));
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Geometry {
    /// `[points, position_dim]`, f32.
    positions: Tensor,
    /// The numbers of `positions`, row-major.
    coordinates: Arc<[f32]>,
    position_dim: usize,
    /// Point indices, sample by sample.
    supernodes: Arc<[u32]>,
    /// Point indices of every sample, ascending; no sample is empty.
    members: Arc<[Vec<u32>]>,
    /// `[points, features]`, f32.
    features: Option<Tensor>,
}

impl Geometry {
    /// One sample: `positions [points, position_dim]` and the point indices of its supernodes.
    ///
    /// # Errors
    /// Another number of axes, NaN or infinite positions, no points or supernodes, an index that is not a point.
    pub fn new(positions: &Tensor, supernodes: &[u32]) -> Result<Self> {
        let points = positions.dims().first().copied().unwrap_or(0);
        Self::batched(positions, supernodes, &vec![0; points])
    }

    /// Several samples: the points of all of them, the sample that each point belongs to (in any order), and the point
    /// indices of the supernodes, sample by sample and equally many for each.
    ///
    /// # Errors
    /// As [`new`](Self::new); a sample without points; supernodes that are not sample by sample or not equally many.
    pub fn batched(positions: &Tensor, supernodes: &[u32], samples: &[u32]) -> Result<Self> {
        let &[points, position_dim] = positions.dims() else {
            return Err(AbUptError::shape("geometry positions", "[points, position_dim]", positions.dims()).into());
        };
        let positions = to_dtype(positions, DType::F32)?.contiguous()?;
        check_finite("geometry positions", &positions)?;
        let coordinates = positions.flatten_all()?.to_vec1::<f32>()?;
        if points == 0 || supernodes.is_empty() {
            let got = format!("{points} points and {} supernodes", supernodes.len());
            return Err(AbUptError::geometry("points and supernodes", "at least one of each", got).into());
        }
        if u32::try_from(points).is_err() {
            return Err(AbUptError::geometry("number of points", "at most 2^32 - 1", points).into());
        }
        if samples.len() != points {
            let got = samples.len().to_string();
            return Err(AbUptError::geometry("sample numbers", format!("{points}, one for each point"), got).into());
        }
        if let Some(index) = supernodes.iter().find(|&&index| index as usize >= points) {
            return Err(AbUptError::geometry("supernode", format!("a point index below {points}"), index).into());
        }
        let batch = samples.iter().max().map_or(0, |&last| last as usize + 1);
        // A sample has at least one point, so a larger number is a mistake; checked before anything of its size is made.
        if batch > points {
            let got = format!("sample {} of {points} points", batch - 1);
            return Err(AbUptError::geometry("sample numbers", "counted from 0 without gaps", got).into());
        }
        let mut members = vec![Vec::new(); batch];
        for (point, &sample) in samples.iter().enumerate() {
            members[sample as usize].push(point as u32);
        }
        if let Some(empty) = members.iter().position(Vec::is_empty) {
            let got = format!("no point of sample {empty}");
            return Err(AbUptError::geometry("sample numbers", "counted from 0 without gaps", got).into());
        }
        check_order(supernodes, samples, batch)?;
        let (coordinates, supernodes, members) = (coordinates.into(), supernodes.into(), members.into());
        Ok(Self { positions, coordinates, position_dim, supernodes, members, features: None })
    }

    /// Adds input features `[points, features]`, for a network that reads them.
    ///
    /// # Errors
    /// Another number of axes or points, NaN or infinity.
    pub fn with_features(mut self, features: &Tensor) -> Result<Self> {
        let points = self.points();
        if features.rank() != 2 || features.dims()[0] != points {
            let expected = format!("[{points}, features]");
            return Err(AbUptError::shape("geometry features", expected, features.dims()).into());
        }
        check_finite("geometry features", features)?;
        self.features = Some(to_dtype(features, DType::F32)?);
        Ok(self)
    }

    /// Checks that a position has as many coordinates as a network expects.
    pub(super) fn check_position_dim(&self, expected: usize) -> std::result::Result<(), AbUptError> {
        if self.position_dim == expected {
            return Ok(());
        }
        Err(AbUptError::shape("geometry positions", format!("[points, {expected}]"), self.positions.dims()))
    }

    /// The same geometry with its tensors on another device.
    pub(super) fn to_device(&self, device: &Device) -> Result<Self> {
        let features = self.features.as_ref().map(|features| to_device(features, device)).transpose()?;
        Ok(Self { positions: to_device(&self.positions, device)?, features, ..self.clone() })
    }

    /// Number of samples.
    pub fn batch(&self) -> usize {
        self.members.len()
    }

    /// Number of points of all samples.
    pub fn points(&self) -> usize {
        self.positions.dims()[0]
    }

    /// Coordinates of a point.
    pub fn position_dim(&self) -> usize {
        self.position_dim
    }

    /// Number of supernodes of one sample.
    pub fn supernodes_per_sample(&self) -> usize {
        self.supernodes.len() / self.batch()
    }

    /// Point indices of the supernodes, sample by sample.
    pub fn supernodes(&self) -> &[u32] {
        &self.supernodes
    }

    /// All points, `[points, position_dim]` in f32.
    pub fn positions(&self) -> &Tensor {
        &self.positions
    }

    /// Input features `[points, features]`.
    pub fn features(&self) -> Option<&Tensor> {
        self.features.as_ref()
    }

    /// Positions of the supernodes, `[batch, supernodes, position_dim]` in f32.
    pub(super) fn supernode_positions(&self) -> Result<Tensor> {
        let index = Tensor::new(&*self.supernodes, self.positions.device())?;
        let shape = (self.batch(), self.supernodes_per_sample(), self.position_dim);
        self.positions.index_select(&index, 0)?.reshape(shape)
    }

    /// The numbers of the positions, row-major.
    pub(super) fn coordinates(&self) -> &[f32] {
        &self.coordinates
    }

    /// Points and supernodes of each sample.
    pub(super) fn samples(&self) -> impl Iterator<Item = (&[u32], &[u32])> {
        let supernodes = self.supernodes.chunks(self.supernodes_per_sample());
        self.members.iter().map(Vec::as_slice).zip(supernodes)
    }
}

/// Checks that the supernodes come sample by sample, equally many for each.
fn check_order(supernodes: &[u32], samples: &[u32], batch: usize) -> std::result::Result<(), AbUptError> {
    let expected = format!("sample by sample, equally many for each of {batch} samples");
    if !supernodes.len().is_multiple_of(batch) {
        return Err(AbUptError::geometry("supernodes", expected, format!("{} supernodes", supernodes.len())));
    }
    let per_sample = supernodes.len() / batch;
    for (position, &supernode) in supernodes.iter().enumerate() {
        let sample = samples[supernode as usize] as usize;
        if sample != position / per_sample {
            let got = format!("point {supernode} of sample {sample} at position {position}");
            return Err(AbUptError::geometry("supernodes", expected, got));
        }
    }
    Ok(())
}
