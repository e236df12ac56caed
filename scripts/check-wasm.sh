#!/usr/bin/env bash
# Golden and property tests as WebAssembly, at every SIMD level: under wasmtime, which comes as a package of Python.
set -euo pipefail
cd "$(dirname "$0")/.."

target=wasm32-wasip1
rustup target add "$target"
if ! python3 -c "import wasmtime" 2>/dev/null; then
  tools=$(mktemp -d)
  trap 'rm -rf "$tools"' EXIT
  python3 -m venv "$tools"
  "$tools/bin/pip" install --quiet --disable-pip-version-check wasmtime
  PATH=$tools/bin:$PATH
fi
export RUSTFLAGS="-C target-feature=+simd128" CARGO_TARGET_WASM32_WASIP1_RUNNER=$PWD/scripts/run-wasi.py
for level in scalar simd128; do
  # There are neither threads, nor a folder for temporary files, nor backtraces.
  MIXED_ATTENTION_SIMD=$level cargo test --release -p candle-mixed-attention --target "$target" \
    --test golden --test properties -- --test-threads=1 \
    --skip split_keys_combine --skip cache_survives_a_file --skip candle_tells_backtraces
done
