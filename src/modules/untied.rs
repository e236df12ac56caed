//! Linear layers with weights of their own for every domain ("untied").

use candle_core::{Result, Tensor};
use candle_nn::init::DEFAULT_KAIMING_NORMAL;
use candle_nn::{Init, Linear, VarBuilder};

use super::domains::DomainRuns;
use super::sharing::SquareBanks;
use crate::checks::check_tokens;
use crate::error::AttentionError;
use crate::ops::{Epilogue, linear};

/// A linear layer with one weight and bias per domain.
#[derive(Debug, Clone)]
pub struct UntiedLinear {
    banks: Vec<Linear>,
}

impl UntiedLinear {
    /// Loads `weight.0`, `weight.1`, … and, if configured, `bias.0`, `bias.1`, …
    ///
    /// # Errors
    /// No domain; a tensor is missing or has another shape than `[out_dim, in_dim]`.
    pub fn new(
        (in_dim, out_dim): (usize, usize),
        domains: usize,
        bias: bool,
        square: SquareBanks,
        vb: &VarBuilder,
    ) -> Result<Self> {
        if domains == 0 {
            return Err(AttentionError::value("number of domains", "at least 1", 0).into());
        }
        // As candle's linear layers begin, where there is no file.
        let bound = 1.0 / (in_dim as f64).sqrt();
        let (of_weight, of_bias) = (DEFAULT_KAIMING_NORMAL, Init::Uniform { lo: -bound, up: bound });
        let bank = |domain: usize| {
            let weight = vb.get_with_hints((out_dim, in_dim), &format!("weight.{domain}"), of_weight)?;
            let weight = match square {
                // A view of weights that are being trained, which follows them.
                SquareBanks::Plain if in_dim == out_dim && weight.track_op() => weight.t()?,
                SquareBanks::Plain if in_dim == out_dim => weight.t()?.contiguous()?,
                _ => weight,
            };
            let bias = if bias { Some(vb.get_with_hints(out_dim, &format!("bias.{domain}"), of_bias)?) } else { None };
            Ok(Linear::new(weight, bias))
        };
        Ok(Self { banks: (0..domains).map(bank).collect::<Result<_>>()? })
    }

    /// One layer for each domain, all of one shape.
    pub(super) fn of_banks(banks: Vec<Linear>) -> Self {
        Self { banks }
    }

    /// The layer of each domain.
    pub(super) fn banks(&self) -> &[Linear] {
        &self.banks
    }

    /// `x [batch, tokens, in_dim]` to `[batch, tokens, out_dim]`, each run of tokens by the weights of its domain.
    ///
    /// # Errors
    /// Runs that hold another number of tokens or name a domain without weights; another width.
    pub fn forward(&self, x: &Tensor, runs: &DomainRuns) -> Result<Tensor> {
        of_each_run([&self.banks], x, runs, |[bank], x| linear(bank, x, Epilogue::None))
    }
}

/// Runs layers on `x [batch, tokens, width]`, each run of tokens by those of its domain; `banks` holds them for each domain.
///
/// # Errors
/// Runs that hold another number of tokens or name a domain without weights; those of `forward`.
pub(super) fn of_each_run<const LAYERS: usize>(
    banks: [&[Linear]; LAYERS],
    x: &Tensor,
    runs: &DomainRuns,
    forward: impl Fn([&Linear; LAYERS], &Tensor) -> Result<Tensor>,
) -> Result<Tensor> {
    let (_, tokens, _) = x.dims3()?;
    check_tokens("x", runs.tokens(), tokens, || format!("{:?} (domain, tokens)", runs.as_slice()))?;
    let domains = banks.iter().map(|banks| banks.len()).min().unwrap_or(0);
    let of = |domain: usize, x: &Tensor| forward(banks.map(|banks| &banks[domain]), x);
    let mut outputs = Vec::with_capacity(runs.as_slice().len());
    let mut start = 0;
    for &(domain, len) in runs.as_slice() {
        if domain >= domains {
            let got = format!("domain {domain} of {domains}");
            return Err(AttentionError::value("domain", "one that has weights", got).into());
        }
        outputs.push(of(domain, &x.narrow(1, start, len)?)?);
        start += len;
    }
    match outputs.as_slice() {
        [] if domains > 0 => of(0, x),
        [output] => Ok(output.clone()),
        outputs => Tensor::cat(outputs, 1),
    }
}
