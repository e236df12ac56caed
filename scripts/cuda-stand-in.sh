#!/usr/bin/env bash
# Builds what stands for the libraries of an NVIDIA GPU (emulator/stand-in) and prints the environment in which programs
# load it instead of them:
#
#   eval "$(scripts/cuda-stand-in.sh)"
#   cargo test --release --features cuda,emulate --test stand_in
set -euo pipefail
cd "$(dirname "$0")/.."

cargo build --release -p cuda-stand-in >&2
target=$(realpath "${CARGO_TARGET_DIR:-target}")/release
folder=$target/stand-in
mkdir -p "$folder"
# One library under the names of all that a program links to, of every version.
for name in libcuda.so.1 libcublas.so.{12,13} libcublasLt.so.{12,13} libcurand.so.10 libnvrtc.so.{12,13}; do
  ln -sf ../libcuda_stand_in.so "$folder/$name"
done
echo "export EMULATOR_CACHE='$target/emulator'"
echo "export LD_LIBRARY_PATH='$folder'\"\${LD_LIBRARY_PATH:+:\$LD_LIBRARY_PATH}\""
