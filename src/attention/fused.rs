//! The fused kernels as a candle op: one launch forward, recomputation by the reference backward.

#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
#[cfg(feature = "metal")]
use candle_core::MetalStorage;
use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, Var};

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
        cpu::forward(&self.arguments, (queries, queries_layout), (keys, keys_layout), (values, values_layout))
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
        cuda::forward(&self.arguments, &Operands { queries, keys, values })
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
        metal::forward(&self.arguments, &Operands { queries, keys, values })
    }

    /// Gradients by recomputation: the reference runs again on copies of the operands, and candle differentiates it.
    fn bwd(
        &self,
        queries: &Tensor,
        keys: &Tensor,
        values: &Tensor,
        _output: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let variable = |tensor: &Tensor| Var::from_tensor(&tensor.detach().contiguous()?);
        let (queries, keys, values) = (variable(queries)?, variable(keys)?, variable(values)?);
        let output = reference::forward(&self.arguments, &queries, &keys, &values)?;
        let loss = (output.transpose(1, 2)? * gradient)?.sum_all()?;
        let gradients = loss.backward()?;
        let of = |variable: &Var| gradients.get(variable).cloned();
        Ok((of(&queries), of(&keys), of(&values)))
    }
}
