//! The fused kernels as a candle op: one launch forward, recomputation by the reference backward.

use std::sync::{Arc, OnceLock};

#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
#[cfg(feature = "metal")]
use candle_core::MetalStorage;
use candle_core::{CpuStorage, CustomOp3, Device, Layout, Result, Shape, Tensor};
#[cfg(any(feature = "cuda", feature = "metal"))]
use candle_core::{Storage, op::BackpropOp};

use super::call::Arguments;
#[cfg(feature = "cuda")]
use super::cuda;
#[cfg(any(feature = "cuda", feature = "metal"))]
use super::gpu::Operands;
#[cfg(feature = "metal")]
use super::metal;
use super::{cpu, reference};

/// The op on (queries, keys, values); everything else is in its arguments. Returns `[batch, tokens, heads, head_dim]`.
pub(super) struct FusedAttention {
    pub arguments: Arguments,
    /// Where the log-sum-exp of each query's scores goes, `[batch, tokens, heads]`, if it is wanted. An op of candle has
    /// one output.
    pub log_sum_exp: Option<Arc<OnceLock<Tensor>>>,
}

#[cfg(any(feature = "cuda", feature = "metal"))]
impl FusedAttention {
    /// Hands out the log-sum-exp of an output of this shape.
    fn give(&self, numbers: Option<Storage>, shape: &Shape) {
        if let (Some(slot), Some(numbers)) = (&self.log_sum_exp, numbers) {
            let numbers = Tensor::from_storage(numbers, &shape.dims()[..3], BackpropOp::none(), false);
            // Set once: an op runs forward once.
            let _ = slot.set(numbers);
        }
    }
}

impl CustomOp3 for FusedAttention {
    fn name(&self) -> &'static str {
        "mixed-attention"
    }

    fn cpu_fwd(
        &self,
        queries: &CpuStorage,
        queries_layout: &Layout,
        keys: &CpuStorage,
        keys_layout: &Layout,
        values: &CpuStorage,
        values_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let wanted = self.log_sum_exp.is_some();
        let operands = ((queries, queries_layout), (keys, keys_layout), (values, values_layout));
        let (output, shape, numbers) = cpu::forward(&self.arguments, operands.0, operands.1, operands.2, wanted)?;
        if let (Some(slot), Some(numbers)) = (&self.log_sum_exp, numbers) {
            // Set once: an op runs forward once.
            let _ = slot.set(Tensor::from_vec(numbers, &shape.dims()[..3], &Device::Cpu)?);
        }
        Ok((output, shape))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        queries: &CudaStorage,
        queries_layout: &Layout,
        keys: &CudaStorage,
        keys_layout: &Layout,
        values: &CudaStorage,
        values_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let (queries, keys, values) = ((queries, queries_layout), (keys, keys_layout), (values, values_layout));
        let wanted = self.log_sum_exp.is_some();
        let (output, shape, numbers) = cuda::forward(&self.arguments, &Operands { queries, keys, values }, wanted)?;
        self.give(numbers.map(Storage::Cuda), &shape);
        Ok((output, shape))
    }

    #[cfg(feature = "metal")]
    fn metal_fwd(
        &self,
        queries: &MetalStorage,
        queries_layout: &Layout,
        keys: &MetalStorage,
        keys_layout: &Layout,
        values: &MetalStorage,
        values_layout: &Layout,
    ) -> Result<(MetalStorage, Shape)> {
        let (queries, keys, values) = ((queries, queries_layout), (keys, keys_layout), (values, values_layout));
        let wanted = self.log_sum_exp.is_some();
        let (output, shape, numbers) = metal::forward(&self.arguments, &Operands { queries, keys, values }, wanted)?;
        self.give(numbers.map(Storage::Metal), &shape);
        Ok((output, shape))
    }

    /// Gradients by recomputation, block by block of queries.
    fn bwd(
        &self,
        queries: &Tensor,
        keys: &Tensor,
        values: &Tensor,
        _output: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let operands = (&queries.detach(), &keys.detach(), &values.detach());
        let [queries, keys, values] =
            reference::backward(&self.arguments, operands, &gradient.detach().transpose(1, 2)?)?;
        Ok((Some(queries), Some(keys), Some(values)))
    }
}
