#!/usr/bin/env bash
# Runs fuzz targets with coverage, each for some seconds, and prints what they reached: all of them, or those that are named.
# Needs a nightly compiler and cargo-fuzz (cargo install cargo-fuzz). Says in the end which failed.
#
#     scripts/fuzz.sh SECONDS [TARGET...]
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:?how many seconds for each target}
shift
targets=("$@")
[ $# -gt 0 ] || mapfile -t targets < <(cargo +nightly fuzz list)

# The words that a target knows: those of its formats.
dictionary() {
  case "$1" in
    pickle | checkpoint | points_torch) echo pickle ;;
    kv_cache | ab_upt_cache | body | points_safetensors | inspect) echo safetensors ;;
    config | statistics | description | run_state | index) echo json ;;
    points_vtk | points_vtp | points_vtu | points_pvtu) echo vtk ;;
    *) echo text ;;
  esac
}

# What is found is kept from run to run, beside the seeds.
cargo +nightly fuzz build
failed=()
for target in "${targets[@]}"; do
  mkdir -p "fuzz/corpus/$target"
  options=(-dict="fuzz/dictionaries/$(dictionary "$target").dict" -max_total_time="$seconds" -timeout=20 -rss_limit_mb=2048)
  echo "== $target"
  log=$(mktemp)
  cargo +nightly fuzz run "$target" "fuzz/corpus/$target" "fuzz/seeds/$target" -- \
    "${options[@]}" -print_final_stats=1 >"$log" 2>&1 || failed+=("$target")
  # One that falls over a seed has none.
  grep -aE "cov: [0-9]+" "$log" | tail -1 || true
  grep -aE "^stat::number_of_executed_units|ERROR|SUMMARY|panicked|Test unit written" "$log" || true
  rm "$log"
done
[ ${#failed[@]} -eq 0 ] || { echo "failed: ${failed[*]}"; exit 1; }
