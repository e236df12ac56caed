//! Where nvcc is and how it compiles the kernels, for `build.rs` and for the tests that run their PTX.

use std::env;
use std::path::{Path, PathBuf};

/// For every kernel and target.
pub(super) const FLAGS: [&str; 2] = ["-std=c++17", "-O3"];

/// Where a toolkit may be, by environment variable.
pub(super) const TOOLKIT_VARIABLES: [&str; 4] = ["CUDA_HOME", "CUDA_PATH", "CUDA_ROOT", "CUDA_TOOLKIT_ROOT_DIR"];

/// `NVCC`, else the one of a toolkit that a variable names, else on the search path, else in the usual place.
pub(super) fn find() -> Result<PathBuf, String> {
    let named = env::var_os("NVCC").map(PathBuf::from);
    let roots = TOOLKIT_VARIABLES.into_iter().filter_map(env::var_os).map(|root| Path::new(&root).join("bin"));
    let path = env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> =
        roots.chain(env::split_paths(&path)).chain([PathBuf::from("/usr/local/cuda/bin")]).collect();
    let program = if cfg!(windows) { "nvcc.exe" } else { "nvcc" };
    named.into_iter().chain(folders.iter().map(|folder| folder.join(program))).find(|path| path.is_file()).ok_or_else(
        || {
            "the feature `cuda` compiles its kernels with nvcc, which was not found in NVCC, CUDA_HOME/bin, \
             CUDA_PATH/bin, CUDA_ROOT/bin, CUDA_TOOLKIT_ROOT_DIR/bin, PATH or /usr/local/cuda/bin; install the CUDA \
             toolkit 12 or later (scripts/cuda-toolkit.sh does it without root) or set one of these variables"
                .to_string()
        },
    )
}
