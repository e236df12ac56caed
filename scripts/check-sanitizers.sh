#!/usr/bin/env bash
# Golden and property tests under AddressSanitizer, at every SIMD level of this machine, and the CPU launch and shared plans
# under ThreadSanitizer. Needs a nightly compiler with rust-src; says so and stops where there is none.
#
#     scripts/check-sanitizers.sh [address|thread]
set -euo pipefail
cd "$(dirname "$0")/.."

if ! { cargo +nightly --version && rustup component add --toolchain nightly rust-src; } >/dev/null 2>&1; then
  echo "sanitizers are skipped: there is no nightly compiler with rust-src"
  exit 0
fi
host=$(rustc -vV | sed -n 's/^host: //p')
# A folder of its own: everything is compiled again.
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target}/sanitizers
# Sizes that no machine holds are refused by the allocator, as without a sanitizer, and end nothing.
export ASAN_OPTIONS=allocator_may_return_null=1 TSAN_OPTIONS=allocator_may_return_null=1

address() {
  for level in scalar avx2 avx512vl avx512_bf16; do
    if [ "$level" = scalar ] || grep -qm1 "$level" /proc/cpuinfo; then
      level=${level/vl/} level=${level/_/}
      RUSTFLAGS=-Zsanitizer=address MIXED_ATTENTION_SIMD=$level \
        cargo +nightly test --release --target "$host" --test golden --test properties
    fi
  done
}

thread() {
  # The standard library is compiled again, too: its locks must be seen.
  local tests=(cargo +nightly test --release -Zbuild-std --target "$host")
  RUSTFLAGS=-Zsanitizer=thread "${tests[@]}" --test behaviour
  RUSTFLAGS=-Zsanitizer=thread "${tests[@]}" --lib -- attention::cpu plan::
}

case "${1:-all}" in
  address) address ;;
  thread) thread ;;
  all)
    address
    thread
    ;;
  *) echo "usage: $0 [address|thread]" && exit 2 ;;
esac
