//! Sines and cosines of angles of any size, at f32 accuracy on every device.
//!
//! candle's own ops have that but on Metal, whose fast math they use; there a kernel of ours runs
//! (`kernels/metal/sin_cos.metal`).

use candle_core::{Result, Tensor};

/// The sine of every angle of an f32 tensor.
pub(crate) fn sin(angles: &Tensor) -> Result<Tensor> {
    #[cfg(feature = "metal")]
    if angles.device().is_metal() && angles.elem_count() > 0 {
        return on_metal::Function::Sine.of(angles);
    }
    angles.sin()
}

/// The cosine of every angle of an f32 tensor.
pub(crate) fn cos(angles: &Tensor) -> Result<Tensor> {
    #[cfg(feature = "metal")]
    if angles.device().is_metal() && angles.elem_count() > 0 {
        return on_metal::Function::Cosine.of(angles);
    }
    angles.cos()
}

#[cfg(feature = "metal")]
mod on_metal {
    use candle_core::backend::BackendStorage;
    use candle_core::{CpuStorage, CustomOp1, DType, Layout, MetalStorage, Result, Shape, Tensor};
    use candle_metal_kernels::metal::ComputeCommandEncoder;

    use crate::kernels::metal::launch::Binding;
    use crate::kernels::metal::recipes;
    use crate::metal::{dispatch, load};

    /// Threads of a threadgroup.
    const THREADS: usize = 256;

    #[derive(Clone, Copy, PartialEq)]
    pub(super) enum Function {
        Sine,
        Cosine,
    }

    impl Function {
        pub(super) fn of(self, angles: &Tensor) -> Result<Tensor> {
            angles.contiguous()?.apply_op1(self)
        }
    }

    impl CustomOp1 for Function {
        fn name(&self) -> &'static str {
            "sin-cos"
        }

        fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
            candle_core::bail!("this op is for Metal tensors")
        }

        fn metal_fwd(&self, angles: &MetalStorage, layout: &Layout) -> Result<(MetalStorage, Shape)> {
            if angles.dtype() != DType::F32 || !layout.is_contiguous() {
                candle_core::bail!("sine and cosine take contiguous f32 angles, got {:?} {layout:?}", angles.dtype());
            }
            let (device, count) = (angles.device(), layout.shape().elem_count());
            let values = device.new_buffer(count, DType::F32, "sin_cos")?;
            let pipeline = load(device, recipes::sin_cos(), &[*self == Self::Cosine], THREADS)?;
            let encoder = device.command_encoder()?;
            let encoder: &ComputeCommandEncoder = encoder.as_ref();
            let bindings =
                [Binding::Input(angles.buffer(), layout.start_offset() * size_of::<f32>()), Binding::Output(&values)];
            let grid = [count.div_ceil(THREADS), 1];
            dispatch(encoder, &pipeline, &bindings, &(count as u64), grid, [THREADS, 1]);
            Ok((MetalStorage::new(values, device.clone(), count, DType::F32), layout.shape().clone()))
        }

        fn bwd(&self, angles: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
            let slope = match self {
                Self::Sine => Self::Cosine.of(angles)?,
                Self::Cosine => Self::Sine.of(angles)?.neg()?,
            };
            Ok(Some((slope * gradient)?))
        }
    }
}
