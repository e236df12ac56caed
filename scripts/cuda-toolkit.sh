#!/usr/bin/env bash
# Installs what compiles, links and disassembles CUDA code: a CUDA 13.0 toolkit made of Python wheels, without root, a
# GPU or a driver. Prints the environment that builds with it.
#
#   eval "$(scripts/cuda-toolkit.sh)"              # into ~/.cache/cuda-13.0
#   eval "$(scripts/cuda-toolkit.sh FOLDER)"
#   cargo check --features cuda --all-targets
#
# CUDA_COMPUTE_CAP chooses what candle's own kernels are compiled for (default 90). The driver's library is a stub to
# link against. Where there is no driver, it can be loaded, too, and says that there is no device:
#
#   LD_LIBRARY_PATH="$CUDA_HOME/lib:$CUDA_HOME/lib/stubs" cargo test --features cuda --test gpu
set -euo pipefail

folder=${1:-${XDG_CACHE_HOME:-$HOME/.cache}/cuda-13.0}
root=$folder/nvidia/cu13

wheels=(
  'nvidia-cuda-nvcc==13.0.*' 'nvidia-cuda-crt==13.0.*' 'nvidia-nvvm==13.0.*' 'nvidia-cuda-runtime==13.0.*'
  'nvidia-cuda-cccl==13.0.*' 'nvidia-cuda-nvrtc==13.0.*' 'nvidia-cublas==13.0.*' 'nvidia-curand==10.4.*'
  'nvidia-cuda-profiler-api==13.0.*' nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm
)

install() {
  local work
  work=$(mktemp -d)
  # shellcheck disable=SC2064  # the folder of now
  trap "rm -rf '$work'" EXIT
  python3 -m pip download --quiet --disable-pip-version-check --no-deps --dest "$work" "${wheels[@]}" >&2
  mkdir -p "$folder"
  local wheel
  for wheel in "$work"/*.whl; do python3 -m zipfile --extract "$wheel" "$folder"; done
  chmod +x "$root"/bin/* "$root"/nvvm/bin/*

  # Wheels hold versioned libraries only; linkers look for plain names, and some build scripts for lib64.
  local library name
  for library in "$root"/lib/lib*.so.*; do
    name=$(basename "$library")
    [[ $name == *.alt.* ]] || ln -sf "$name" "$root/lib/${name%%.so.*}.so"
  done
  ln -sfn lib "$root/lib64"

  touch "$folder/.ready"
}

# A libcuda with every function of the driver's headers, each of which returns CUDA_ERROR_NO_DEVICE.
make_stub() {
  local source=$root/lib/stubs/cuda.c
  mkdir -p "$root/lib/stubs"
  grep -ohE '\bcu[A-Z][A-Za-z0-9_]+' "$root"/include/cuda.h "$root"/include/cudaProfiler.h | sort -u |
    sed 's/.*/int &(void) { return 100; }/' >"$source"
  cc -shared -fPIC -w -Wl,-soname,libcuda.so.1 -o "$root/lib/stubs/libcuda.so" "$source"
  ln -sf libcuda.so "$root/lib/stubs/libcuda.so.1"
}

[ -e "$folder/.ready" ] || install
[ -e "$root/lib/stubs/libcuda.so.1" ] || make_stub

cat <<ENVIRONMENT
export CUDA_HOME='$root' CUDA_PATH='$root' CUDA_ROOT='$root' CUDA_TOOLKIT_ROOT_DIR='$root'
export CUDA_COMPUTE_CAP="\${CUDA_COMPUTE_CAP:-90}"
export PATH='$root/bin':"\$PATH"
export LIBRARY_PATH='$root/lib:$root/lib/stubs'"\${LIBRARY_PATH:+:\$LIBRARY_PATH}"
ENVIRONMENT
