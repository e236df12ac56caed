//! Fields: mean and standard deviation per component, and the logarithmic scale.

use candle_core::{D, DType, Result, Tensor};
use serde::{Deserialize, Serialize};

use super::error::{NormalisationError, check};
use crate::ops::to_dtype;

/// Smallest standard deviation that data is divided by, so that a constant field stays finite.
const SMALLEST_STD: f64 = 1e-6;

/// Mean and standard deviation of one field of one domain.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Entry", into = "Entry")]
pub struct FieldStatistics {
    domain: String,
    name: String,
    mean: Vec<f64>,
    std: Vec<f64>,
    logscale: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    domain: String,
    name: String,
    mean: PerComponent,
    std: PerComponent,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    logscale: bool,
}

/// One number per component; a field of one component may be written without the list.
#[derive(Serialize, Deserialize)]
#[serde(untagged, expecting = "a number, or a list of one number per component")]
pub(super) enum PerComponent {
    One(f64),
    All(Vec<f64>),
}

impl From<PerComponent> for Vec<f64> {
    fn from(values: PerComponent) -> Self {
        match values {
            PerComponent::One(value) => vec![value],
            PerComponent::All(values) => values,
        }
    }
}

impl From<Vec<f64>> for PerComponent {
    fn from(values: Vec<f64>) -> Self {
        Self::All(values)
    }
}

impl TryFrom<Entry> for FieldStatistics {
    type Error = NormalisationError;

    fn try_from(entry: Entry) -> std::result::Result<Self, NormalisationError> {
        let statistics = Self::new(entry.domain, entry.name, entry.mean.into(), entry.std.into())?;
        Ok(statistics.with_logscale(entry.logscale))
    }
}

impl From<FieldStatistics> for Entry {
    fn from(statistics: FieldStatistics) -> Self {
        let FieldStatistics { domain, name, mean, std, logscale } = statistics;
        Self { domain, name, mean: mean.into(), std: std.into(), logscale }
    }
}

impl FieldStatistics {
    /// Statistics with one mean and one standard deviation per component, on a linear scale.
    ///
    /// # Errors
    /// Lists of different length, or a negative standard deviation.
    pub fn new(
        domain: String,
        name: String,
        mean: Vec<f64>,
        std: Vec<f64>,
    ) -> std::result::Result<Self, NormalisationError> {
        check(|| format!("mean of field '{domain}_{name}'"), &mean, mean.len(), "", |_| true)?;
        check(|| format!("std of field '{domain}_{name}'"), &std, mean.len(), " from 0 up", |value| value >= 0.0)?;
        Ok(Self { domain, name, mean, std, logscale: false })
    }

    /// Says whether mean and standard deviation are those of `sign(y) ln(1 + |y|)` instead of `y`.
    pub fn with_logscale(self, logscale: bool) -> Self {
        Self { logscale, ..self }
    }

    /// The domain.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The name within the domain.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Number of components.
    pub fn width(&self) -> usize {
        self.mean.len()
    }

    /// Whether the network works on `sign(y) ln(1 + |y|)`.
    pub fn logscale(&self) -> bool {
        self.logscale
    }

    /// Carries physical values `[.., width]` into the units of the network, as f32.
    ///
    /// # Errors
    /// Another width, or an operation of candle fails.
    pub fn normalise(&self, values: &Tensor) -> Result<Tensor> {
        let values = self.to_f32(values)?;
        let values = if self.logscale { (values.sign()? * (values.abs()? + 1.0)?.log()?)? } else { values };
        let std: Vec<_> = self.std.iter().map(|std| std.max(SMALLEST_STD)).collect();
        values.broadcast_sub(&row(&self.mean, &values)?)?.broadcast_div(&row(&std, &values)?)
    }

    /// Carries what the network returned, `[.., width]`, into physical values, as f32.
    ///
    /// # Errors
    /// Another width, or an operation of candle fails.
    pub fn denormalise(&self, values: &Tensor) -> Result<Tensor> {
        let values = self.to_f32(values)?;
        let values = values.broadcast_mul(&row(&self.std, &values)?)?.broadcast_add(&row(&self.mean, &values)?)?;
        if self.logscale { values.sign()? * (values.abs()?.exp()? - 1.0)? } else { Ok(values) }
    }

    fn to_f32(&self, values: &Tensor) -> Result<Tensor> {
        let got = values.dims().last().copied();
        if got != Some(self.width()) {
            let argument = format!("field '{}_{}'", self.domain, self.name);
            let got = format!("shape {:?}", values.dims());
            return Err(NormalisationError::Width { argument, row: "point", expected: self.width(), got }.into());
        }
        to_dtype(values, DType::F32)
    }
}

fn row(values: &[f64], like: &Tensor) -> Result<Tensor> {
    let values: Vec<_> = values.iter().map(|&value| value as f32).collect();
    let mut shape = vec![1; like.rank()];
    shape[like.rank() - 1] = like.dim(D::Minus1)?;
    Tensor::from_vec(values, shape, like.device())
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    fn field(logscale: bool) -> FieldStatistics {
        let field = FieldStatistics::new("volume".into(), "vorticity".into(), vec![0.5, -1.0], vec![2.0, 0.25]);
        field.unwrap().with_logscale(logscale)
    }

    fn tensor(values: &[[f32; 2]]) -> Tensor {
        Tensor::from_slice(values.as_flattened(), (values.len(), 2), &Device::Cpu).unwrap()
    }

    #[test]
    fn linear_fields_follow_the_formula() {
        let back = field(false).denormalise(&tensor(&[[1.0, 2.0], [0.0, -4.0]])).unwrap();
        assert_eq!(back.to_vec2::<f32>().unwrap(), [[2.5, -0.5], [0.5, -2.0]]);
    }

    #[test]
    fn logarithmic_fields_follow_the_formula() {
        let back = field(true).denormalise(&tensor(&[[1.0, 2.0]])).unwrap().to_vec2::<f32>().unwrap();
        let expected = [2.5f64.exp() - 1.0, -(0.5f64.exp() - 1.0)];
        for (got, expected) in back[0].iter().zip(expected) {
            assert!((f64::from(*got) - expected).abs() <= 2e-6 * expected.abs(), "{got} for {expected}");
        }
    }

    #[test]
    fn there_and_back() {
        let physical = [[0.0, 3.0], [-120.0, 1e-3]];
        for logscale in [false, true] {
            let field = field(logscale);
            let back = field.denormalise(&field.normalise(&tensor(&physical)).unwrap()).unwrap();
            for (got, expected) in back.to_vec2::<f32>().unwrap().iter().flatten().zip(physical.iter().flatten()) {
                assert!((got - expected).abs() <= 2e-6 * expected.abs().max(1.0), "{got} for {expected}");
            }
        }
    }

    #[test]
    fn a_constant_field_stays_finite() {
        let field = FieldStatistics::new("s".into(), "p".into(), vec![4.0], vec![0.0]).unwrap();
        let constant = Tensor::new(&[[4.0f32]], &Device::Cpu).unwrap();
        let normalised = field.normalise(&constant).unwrap();
        assert_eq!(normalised.to_vec2::<f32>().unwrap(), [[0.0]]);
        assert_eq!(field.denormalise(&normalised).unwrap().to_vec2::<f32>().unwrap(), [[4.0]]);
    }

    #[test]
    fn half_precision_is_widened_first() {
        let values = tensor(&[[1.0, 2.0]]).to_dtype(DType::F16).unwrap();
        let back = field(false).denormalise(&values).unwrap();
        assert_eq!((back.dtype(), back.to_vec2::<f32>().unwrap()), (DType::F32, vec![vec![2.5, -0.5]]));
    }

    #[test]
    fn another_width_is_refused() {
        let values = Tensor::zeros((4, 3), DType::F32, &Device::Cpu).unwrap();
        let message = field(false).denormalise(&values).unwrap_err().to_string();
        assert!(message.contains("'volume_vorticity' must have 2 components per point, got shape [4, 3]"), "{message}");
    }
}
