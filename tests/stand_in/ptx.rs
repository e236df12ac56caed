//! The PTX of the kernels that the crate embeds as machine code, which the emulator cannot run: from the same source, by
//! the same compiler with the same flags.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Error, Result};
use candle_mixed_attention::kernels::cuda::recipes;
use candle_mixed_attention::kernels::cuda::tiling::{Element, SM90_TILINGS, Tiling, Variant};
use emulator::{Nvcc, PtxSource};

/// A folder with `NAME.ptx` for each kernel for Hopper that tests run: f16 at head_dim 64.
pub fn provide() -> Result<PathBuf> {
    let nvcc = Nvcc::find().map_err(Error::msg)?;
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/kernels/cuda"));
    let mut provided = None;
    for variant in Variant::ALL {
        let recipe = recipes::attention(Tiling::Sm90(&SM90_TILINGS[0]), Element::F16, variant);
        let (path, defines) = (folder.join(recipe.file), recipe.defines.as_slice());
        let ptx = nvcc.ptx(PtxSource { path: &path, defines, includes: &[], architecture: "compute_90a" })?;
        let folder = ptx.parent().context("a file in a folder")?.join("stand-in");
        fs::create_dir_all(&folder)?;
        fs::copy(&ptx, folder.join(&recipe.name).with_extension("ptx"))?;
        provided = Some(folder);
    }
    provided.context("a kernel")
}
