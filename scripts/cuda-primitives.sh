#!/usr/bin/env bash
# Compiles the emulator's kernels of single instructions to PTX, which the tests in tests/gpu/primitives.rs load where
# MIXED_ATTENTION_PRIMITIVES names the folder.
#
#   eval "$(scripts/cuda-toolkit.sh)"              # nvcc, unless there is one
#   scripts/cuda-primitives.sh FOLDER
set -euo pipefail
cd "$(dirname "$0")/.."

[ $# -eq 1 ] || { echo 'usage: scripts/cuda-primitives.sh FOLDER' >&2; exit 2; }
nvcc=${NVCC:-${CUDA_HOME:+$CUDA_HOME/bin/}nvcc}
for kernel in primitives:compute_80 primitives_hopper:compute_90a; do
  file=${kernel%:*} target=${kernel#*:}
  "$nvcc" -std=c++17 -O3 -ptx -gencode="arch=$target,code=$target" -I kernels/cuda -o "$1/$file.ptx" \
    "emulator/kernels/$file.cu"
done
