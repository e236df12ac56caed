//! Small calls with everything that a call can have, and what they should compute.

#![allow(dead_code, reason = "each test binary uses its own part")]

use anyhow::{Error, Result};
use candle_core::{DType, Device, Tensor};
use candle_mixed_attention::{
    AttentionOptions, AttentionPattern, AttentionPlan, Backend, KeyPadding, KvCache, RopeFrequencies, TokenSpec,
    mixed_attention_cached, mixed_attention_part,
};

use crate::compare::check_close;

/// What a call has.
#[derive(Clone, Copy, Debug, Default)]
pub struct Features {
    pub rope: bool,
    pub padding: bool,
    /// A window, a bias of keys, and log-sum-exps.
    pub general: bool,
    /// Keys in a cache, which all queries see; 0 for none.
    pub cached: usize,
    /// One row of the cache for the whole batch.
    pub broadcast: bool,
    /// Tokens of the input whose keys all queries see.
    pub anchors: usize,
    /// Tokens that see each other and the anchors.
    pub queries: usize,
    pub head_dim: usize,
    pub batch: usize,
    pub heads: usize,
}

pub const PLAIN: Features = Features {
    rope: false,
    padding: false,
    general: false,
    cached: 0,
    broadcast: false,
    anchors: 70,
    queries: 21,
    head_dim: 64,
    batch: 1,
    heads: 2,
};

/// Few queries that see so many keys that these are split, some of them rotated: everything that a call can keep on a device.
pub const SPLIT: Features = Features { rope: true, cached: 1100, anchors: 3, heads: 1, ..PLAIN };

/// A call before it is on a device: its numbers as f32 on the CPU.
#[derive(Clone)]
pub struct Problem {
    pub features: Features,
    pub plan: AttentionPlan,
    operands: [Tensor; 3],
    cached: [Tensor; 2],
    angles: Tensor,
    bias: Tensor,
    pub padding: KeyPadding,
}

/// A call on a device.
#[derive(Clone)]
pub struct Call<'a> {
    plan: &'a AttentionPlan,
    pub operands: [Tensor; 3],
    pub cache: Option<KvCache>,
    pub options: AttentionOptions,
    /// On the device, whether the options have them or not.
    pub angles: RopeFrequencies,
    pub bias: Tensor,
    general: bool,
}

/// Numbers around 0, other ones for each seed.
pub fn numbers(shape: &[usize], seed: u64) -> Result<Tensor> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.
    };
    let count = shape.iter().product();
    Ok(Tensor::from_vec((0..count).map(|_| next()).collect::<Vec<f32>>(), shape, &Device::Cpu)?)
}

/// A plan that has met no call.
fn plan(Features { cached, general, anchors, queries, .. }: Features) -> Result<AttentionPlan> {
    let mut groups = vec![TokenSpec::new("anchors", anchors), TokenSpec::new("queries", queries)];
    let mut seen = vec!["anchors"];
    if cached > 0 {
        groups.insert(0, TokenSpec::cached("past"));
        seen.insert(0, "past");
    }
    let first = AttentionPattern::queries(["anchors"]).attend_to(seen.clone());
    seen.push("queries");
    let last = AttentionPattern::queries(["queries"]).attend_to(seen);
    Ok(AttentionPlan::new(groups, [first, if general { last.window(40, 3) } else { last }])?)
}

impl Problem {
    pub fn new(features: Features, seed: u64) -> Result<Self> {
        let Features { cached, broadcast, anchors, queries, head_dim, batch, heads, .. } = features;
        let tokens = anchors + queries;
        let rows = if broadcast { 1 } else { batch };
        let of = |tokens: usize, number: u64| numbers(&[batch, heads, tokens, head_dim], 31 * seed + number);
        let past = |number: u64| numbers(&[rows, heads, cached, head_dim], 31 * seed + number);
        let real: Vec<u8> = (0..batch * tokens).map(|token| u8::from(token % 5 != 2)).collect();
        Ok(Self {
            features,
            plan: plan(features)?,
            operands: [of(tokens, 1)?, of(tokens, 2)?, of(tokens, 3)?],
            cached: [past(4)?, past(5)?],
            angles: (numbers(&[1, tokens, head_dim / 2], seed + 6)? * 3.)?,
            bias: numbers(&[1, heads, tokens], seed + 7)?,
            padding: KeyPadding::from_mask(&Tensor::from_vec(real, (batch, tokens), &Device::Cpu)?)?,
        })
    }

    /// The call in a dtype on a device.
    pub fn on(&self, device: &Device, dtype: DType, backend: Backend) -> Result<Call<'_>> {
        let place = |tensor: &Tensor| -> Result<Tensor> { Ok(tensor.to_dtype(dtype)?.to_device(device)?) };
        let [q, k, v] = &self.operands;
        let mut options = AttentionOptions::default().backend(backend);
        let angles = RopeFrequencies::from_angles(&self.angles.to_device(device)?)?;
        let bias = self.bias.to_device(device)?;
        if self.features.rope {
            options = options.rope(&angles);
        }
        if self.features.padding {
            options = options.key_padding(self.padding.clone());
        }
        if self.features.general {
            options = options.key_bias(&bias);
        }
        let cache = match self.features.cached > 0 {
            true => Some(KvCache::from_groups([("past", place(&self.cached[0])?, place(&self.cached[1])?)], None)?),
            false => None,
        };
        let operands = [place(q)?, place(k)?, place(v)?];
        Ok(Call { plan: &self.plan, operands, cache, options, angles, bias, general: self.features.general })
    }

    /// The same plan, before it has met a call.
    pub fn fresh_plan(&self) -> Result<AttentionPlan> {
        plan(self.features)
    }

    /// The same call with other queries.
    pub fn with_queries(&self, queries: &Tensor) -> Self {
        let [_, k, v] = self.operands.clone();
        Self { operands: [queries.clone(), k, v], ..self.clone() }
    }

    /// The definition in f64, of operands rounded to a dtype.
    pub fn expected(&self, dtype: DType) -> Result<Tensor> {
        let rounded = |tensors: &[Tensor]| -> Result<Vec<Tensor>> {
            tensors.iter().map(|tensor| Ok(tensor.to_dtype(dtype)?.to_dtype(DType::F32)?)).collect()
        };
        let (operands, cached) = (rounded(&self.operands)?, rounded(&self.cached)?);
        let operands = operands.try_into().map_err(|_| Error::msg("three operands"))?;
        let cached = cached.try_into().map_err(|_| Error::msg("keys and values"))?;
        let copy = Self { operands, cached, ..self.clone() };
        copy.on(&Device::Cpu, DType::F64, Backend::Reference)?.run()
    }

    /// Runs the call on a device and compares.
    pub fn check(&self, device: &Device, dtype: DType) -> Result<()> {
        let got = self.on(device, dtype, Backend::Fused)?.run()?;
        self.compare(&got, dtype)
    }

    /// Compares a result with the definition.
    pub fn compare(&self, got: &Tensor, dtype: DType) -> Result<()> {
        let tolerance = match dtype {
            DType::F32 => 1e-5,
            DType::F16 => 4e-3,
            _ => 3e-2,
        };
        // The view is of rows, which lie one after the other.
        let got = got.transpose(1, 2)?.to_device(&Device::Cpu)?.transpose(1, 2)?;
        let what = format!("{dtype:?}, {:?}", self.features);
        check_close(&what, &got, &self.expected(dtype)?, tolerance).map_err(Error::msg)
    }
}

impl<'a> Call<'a> {
    /// The same call with another plan for the same groups.
    pub fn with_plan<'b>(&self, plan: &'b AttentionPlan) -> Call<'b> {
        Call {
            plan,
            operands: self.operands.clone(),
            cache: self.cache.clone(),
            options: self.options.clone(),
            angles: self.angles.clone(),
            bias: self.bias.clone(),
            ..*self
        }
    }

    /// The same call with something changed.
    pub fn replacing(&self, change: impl FnOnce(&mut Self)) -> Self {
        let mut call = self.clone();
        change(&mut call);
        call
    }

    /// The result `[batch, heads, tokens, head_dim]`.
    pub fn run(&self) -> Result<Tensor> {
        let [q, k, v] = &self.operands;
        let keys_values = Some((k, v));
        Ok(match &self.cache {
            _ if self.general => {
                mixed_attention_part(q, keys_values, self.cache.as_ref(), self.plan, &self.options)?.output
            }
            Some(cache) => mixed_attention_cached(q, keys_values, cache, self.plan, &self.options)?,
            None => candle_mixed_attention::mixed_attention(q, k, v, self.plan, &self.options)?,
        })
    }
}
