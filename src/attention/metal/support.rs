//! What a GPU runs: its family, the head_dim, and whether Metal makes pipelines of the kernels, which only trying tells.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex};

use candle_core::backend::BackendDevice;
use candle_core::{DType, MetalDevice, Result};
use objc2_metal::{MTLDevice, MTLGPUFamily};

use crate::error::Unsupported;
use crate::kernels::metal::recipes::{self, Uniform};
use crate::kernels::metal::tiling::{self, COMBINE_THREADS, Element, Family, ROTATE_THREADS, Tiling};
use crate::lock::lock;
use crate::metal::load;
use crate::metal::system::has_metal_3_1;

type Answer<T> = std::result::Result<T, Unsupported>;

/// Whether the kernels run on this device with this dtype and head_dim, or why not.
///
/// The first question about a GPU, dtype and head_dim compiles its kernels; the answer is kept, also a refusal.
pub(crate) fn supports(device: &MetalDevice, dtype: DType, head_dim: usize) -> Answer<()> {
    let (element, tiling) = kernel_of(device, dtype, head_dim)?;
    let key = (device.metal_device().registry_id(), element, head_dim);
    let mut tried = lock(&TRIED);
    let answer = tried.entry(key).or_insert_with(|| {
        // What follows the first line is a backtrace, or more of the compiler's log.
        let first_line = |error: candle_core::Error| error.to_string().lines().next().unwrap_or_default().to_string();
        compile(device, element, tiling, head_dim).map_err(first_line)
    });
    answer.clone().map_err(|error| {
        let reason = format!("Metal refuses the kernels for {dtype:?} and head_dim {head_dim}: {error}");
        Unsupported::Device { device: device.location(), reason }
    })
}

/// Whether Metal took the kernels, or why not, by registry number of the GPU, element and head_dim.
static TRIED: LazyLock<Mutex<Tried>> = LazyLock::new(Mutex::default);

type Tried = HashMap<(u64, Element, usize), std::result::Result<(), String>>;

/// Compiles what calls launch. Of the attention kernel, the variant that does everything stands for the others, which
/// leave parts out.
fn compile(device: &MetalDevice, element: Element, tiling: &Tiling, head_dim: usize) -> Result<()> {
    let attend = recipes::mixed_attention(tiling, element, head_dim);
    load(device, attend, &Uniform::EVERYTHING.constants(), tiling.threads())?;
    load(device, recipes::rotate_keys(element), &[], ROTATE_THREADS.iter().product())?;
    load(device, recipes::combine_split_keys(element), &[], COMBINE_THREADS)?;
    Ok(())
}

/// What computes with a dtype and head_dim on a device.
pub(crate) fn kernel_of(device: &MetalDevice, dtype: DType, head_dim: usize) -> Answer<(Element, &'static Tiling)> {
    let family = family(device)?;
    let element = match (dtype, family) {
        (DType::F16, _) => Element::F16,
        (DType::BF16, Family::Apple9) if has_metal_3_1() => Element::Bf16,
        (DType::BF16, _) => Element::WideBf16,
        (DType::F32, _) => Element::F32,
        (dtype, _) => return Err(Unsupported::DType { dtype, device: device.location() }),
    };
    let wanted = chosen(device)?.filter(|tiling| tiling.serves(family, element) && tiling.head_dim >= head_dim);
    let tiling = wanted.or_else(|| Tiling::of(family, element, head_dim)).filter(|_| head_dim.is_multiple_of(8));
    let expected = "multiples of 8 up to 256";
    let tiling = tiling.ok_or_else(|| Unsupported::HeadDim { head_dim, expected, device: device.location() })?;
    Ok((element, tiling))
}

/// The candidate that the environment asks for.
fn chosen(device: &MetalDevice) -> Answer<Option<&'static Tiling>> {
    static CHOSEN: LazyLock<Option<String>> = LazyLock::new(|| std::env::var(tiling::CHOICE).ok());
    let Some(number) = &*CHOSEN else { return Ok(None) };
    let candidate = Tiling::candidate(number).map(Some);
    candidate.ok_or_else(|| {
        let (choice, count) = (tiling::CHOICE, tiling::CANDIDATES.len());
        let reason = format!("{choice} must be a number below {count}, got '{number}'");
        Unsupported::Device { device: device.location(), reason }
    })
}

/// GPU cores, roughly.
pub(crate) fn cores(device: &MetalDevice) -> usize {
    // Older systems do not name the architecture.
    let architecture = if has_metal_3_1() { device.metal_device().architecture_name() } else { String::new() };
    tiling::cores(&architecture)
}

/// The family of a GPU.
///
/// # Errors
/// One without matrices.
pub(crate) fn family(device: &MetalDevice) -> Answer<Family> {
    let gpu = device.metal_device().as_ref();
    if gpu.supportsFamily(MTLGPUFamily::Apple9) {
        Ok(Family::Apple9)
    } else if gpu.supportsFamily(MTLGPUFamily::Apple7) {
        Ok(Family::Apple7)
    } else {
        let reason = format!("the kernels need a GPU of family Apple7 (M1, A14) or later, got '{}'", gpu.name());
        Err(Unsupported::Device { device: device.location(), reason })
    }
}
