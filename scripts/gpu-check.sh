#!/usr/bin/env bash
# Everything that only a machine with an NVIDIA GPU can tell, in one command: tests, compute-sanitizer, benches, and
# PyTorch on the same workloads. Needs the CUDA toolkit (nvcc, and compute-sanitizer for its part), and PyTorch for the
# last table. Logs go to target/gpu-check.
#
#   scripts/gpu-check.sh                        # all of it
#   scripts/gpu-check.sh tests bench            # some of: tests sanitizer bench peers
set -euo pipefail
cd "$(dirname "$0")/.."

parts=("$@")
[ ${#parts[@]} -gt 0 ] || parts=(tests sanitizer bench peers)
logs=target/gpu-check
mkdir -p "$logs"
failed=()

# run NAME COMMAND...: keeps the log, goes on after a failure.
run() {
  local name=$1
  shift
  printf '\n== %s: %s\n' "$name" "$*"
  "$@" 2>&1 | tee "$logs/$name.log" || failed+=("$name")
}

tests() {
  run golden cargo test --release --features cuda --test golden -- cuda
  PROPTEST_CASES=${PROPTEST_CASES:-400} run properties cargo test --release --features cuda --test properties
  # One after the other: two of them need most of the device's memory.
  run gpu cargo test --release --features cuda --test gpu -- --test-threads 1
}

# The path of a test binary.
binary() {
  cargo test --release --features cuda --test "$1" --no-run --message-format=json 2>/dev/null |
    sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -1
}

sanitizer() {
  local golden gpu tool
  golden=$(binary golden)
  gpu=$(binary gpu)
  for tool in memcheck racecheck synccheck; do
    run "$tool-golden" compute-sanitizer --tool "$tool" --error-exitcode 1 "$golden" --test-threads 1 'mixed/' \
      --skip reference --skip fused
    run "$tool-gpu" compute-sanitizer --tool "$tool" --error-exitcode 1 "$gpu" --test-threads 1 \
      --exact cuda::rows_at_odd_addresses_are_read
  done
}

bench() {
  run bench cargo bench --features cuda --bench attention -- cuda/
}

peers() {
  run peers python3 benches/peers/torch_attention.py --device cuda --ours target/criterion
}

run device nvidia-smi --query-gpu=name,driver_version,compute_cap,clocks.max.sm,power.limit --format=csv
for part in "${parts[@]}"; do
  case $part in
    tests | sanitizer | bench | peers) "$part" ;;
    *)
      echo "unknown part '$part': tests, sanitizer, bench or peers" >&2
      exit 2
      ;;
  esac
done
if [ ${#failed[@]} -gt 0 ]; then
  printf '\nfailed: %s; logs in %s\n' "${failed[*]}" "$logs" >&2
  exit 1
fi
