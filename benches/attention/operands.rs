//! What a workload runs on: random tensors for the attention alone, random weights and input for the whole layer.

use std::collections::HashMap;

use candle_core::{DType, Device, Error, Module, Result, Tensor};
use candle_mixed_attention::{
    AttentionOptions, AttentionPlan, Backend, KvCache, MixedAttention, MixedAttentionConfig, mixed_attention,
    mixed_attention_cached,
};
use candle_nn::{Linear, VarBuilder, VarMap};

use crate::workloads::Workload;

/// Queries, keys and values as views of one fused projection, and the cache.
pub struct Operands {
    pub queries: Tensor,
    pub keys: Tensor,
    pub values: Tensor,
    pub cache: Option<KvCache>,
}

impl Operands {
    pub fn random(workload: &Workload, dtype: DType, device: &Device) -> Result<Self> {
        let shape = (1, workload.plan.len(), 3 * workload.hidden_dim);
        let fused = Tensor::randn(0f32, 1., shape, device)?.to_dtype(dtype)?;
        Self::of_projection(workload, &fused, random_cache(workload, dtype, device)?)
    }

    /// `projection [1, tokens, parts · hidden_dim]`: queries, keys and values, or queries alone.
    fn of_projection(workload: &Workload, projection: &Tensor, cache: Option<KvCache>) -> Result<Self> {
        let (_, tokens, width) = projection.dims3()?;
        let parts = width / workload.hidden_dim;
        let all = projection.reshape((1, tokens, parts, workload.num_heads, workload.head_dim()))?;
        let view = |part: usize| all.narrow(2, part.min(parts - 1), 1)?.squeeze(2)?.transpose(1, 2);
        Ok(Self { queries: view(0)?, keys: view(1)?, values: view(2)?, cache })
    }

    pub fn attend(&self, plan: &AttentionPlan, options: &AttentionOptions) -> Result<Tensor> {
        match &self.cache {
            None => mixed_attention(&self.queries, &self.keys, &self.values, plan, options),
            Some(cache) => mixed_attention_cached(&self.queries, None, cache, plan, options),
        }
    }
}

fn random_cache(workload: &Workload, dtype: DType, device: &Device) -> Result<Option<KvCache>> {
    if workload.cached.is_empty() {
        return Ok(None);
    }
    let random = |size| {
        let shape = (1, workload.num_heads, size, workload.head_dim());
        Tensor::randn(0f32, 1., shape, device)?.to_dtype(dtype)
    };
    let groups = workload.cached.iter().map(|(name, size)| Ok((name.clone(), random(*size)?, random(*size)?)));
    KvCache::from_groups(groups.collect::<Result<Vec<_>>>()?, None).map(Some)
}

/// Weights as they come from a file: variables of a training would keep the layer from its fused linear layers.
fn random_weights(width: usize, dtype: DType) -> Result<VarBuilder<'static>> {
    let vars = VarMap::new();
    let trained = VarBuilder::from_varmap(&vars, dtype, &Device::Cpu);
    for name in ["q", "k", "v", "proj"] {
        candle_nn::linear(width, width, trained.pp(name))?;
    }
    let vars = vars.data().lock().map_err(|_| Error::msg("poisoned"))?;
    let weights = vars.iter().map(|(name, var)| (name.clone(), var.as_detached_tensor()));
    Ok(VarBuilder::from_tensors(weights.collect(), dtype, &Device::Cpu))
}

/// The whole layer: its input, and its weights in our form and as candle's linear layers.
pub struct Layer {
    ours: MixedAttention,
    /// Queries, keys and values side by side; queries alone if all keys are cached.
    input_projection: Linear,
    output_projection: Linear,
    x: Tensor,
    cache: Option<KvCache>,
}

impl Layer {
    pub fn random(workload: &Workload, dtype: DType) -> Result<Self> {
        let width = workload.hidden_dim;
        let vb = random_weights(width, dtype)?;
        let ours = MixedAttention::new(&MixedAttentionConfig::new(width, workload.num_heads), vb.clone())?;
        let linear = |name: &str| candle_nn::linear(width, width, vb.pp(name));
        let cache = random_cache(workload, dtype, &Device::Cpu)?;
        let names: &[&str] = if cache.is_some() { &["q"] } else { &["q", "k", "v"] };
        let parts = names.iter().map(|name| linear(name)).collect::<Result<Vec<_>>>()?;
        let weights: Vec<&Tensor> = parts.iter().map(Linear::weight).collect();
        let biases: Vec<&Tensor> = parts.iter().filter_map(Linear::bias).collect();
        let input_projection = Linear::new(Tensor::cat(&weights, 0)?, Some(Tensor::cat(&biases, 0)?));
        let x = Tensor::randn(0f32, 1., (1, workload.plan.len(), width), &Device::Cpu)?.to_dtype(dtype)?;
        Ok(Self { ours, input_projection, output_projection: linear("proj")?, x, cache })
    }

    pub fn forward(&self, workload: &Workload, options: &AttentionOptions) -> Result<Tensor> {
        match &self.cache {
            None => self.ours.forward(&self.x, &workload.plan, options),
            Some(cache) => self.ours.forward_from_cache(&self.x, &workload.plan, cache, options),
        }
    }

    /// Weights, input, keys and values of cached groups, and the output of the fused kernel.
    pub fn tensors(&self, workload: &Workload) -> Result<HashMap<String, Tensor>> {
        let fused = AttentionOptions::default().backend(Backend::Fused);
        let mut tensors = HashMap::from([
            ("x".to_string(), self.x.clone()),
            ("output".to_string(), self.forward(workload, &fused)?.contiguous()?),
        ]);
        for (name, layer) in [("input", &self.input_projection), ("proj", &self.output_projection)] {
            tensors.insert(format!("{name}.weight"), layer.weight().clone());
            tensors.extend(layer.bias().map(|bias| (format!("{name}.bias"), bias.clone())));
        }
        for (name, _) in &workload.cached {
            let (keys, values) = self.cache.as_ref().map(|cache| cache.group(name)).transpose()?.unzip();
            tensors.extend(keys.map(|keys| (format!("cache.{name}.keys"), keys)));
            tensors.extend(values.map(|values| (format!("cache.{name}.values"), values)));
        }
        Ok(tensors)
    }

    /// The layer in candle's linear layers around another attention.
    pub fn forward_around(
        &self,
        workload: &Workload,
        attend: impl Fn(&Operands, &Workload) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let projection = self.input_projection.forward(&self.x)?;
        let operands = Operands::of_projection(workload, &projection, self.cache.clone())?;
        let heads = attend(&operands, workload)?;
        self.output_projection.forward(&heads.transpose(1, 2)?.contiguous()?.flatten_from(2)?)
    }
}
