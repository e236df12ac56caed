#!/usr/bin/env bash
# Looks at the machine code of the CUDA kernels: the instructions that make them fast are there, nothing is spilled to
# local memory, the compiler kept the pipelines of the Hopper kernels as they are written. Prints registers, shared
# memory and counts of instructions per kernel. Needs a toolkit (scripts/cuda-toolkit.sh), no GPU.
#
#   scripts/check-sass.sh              # PTX assembled for sm_80 and sm_90
#   scripts/check-sass.sh 89 120       # for others
set -euo pipefail
cd "$(dirname "$0")/.."

counting=check
if [ "${1:-}" = write ]; then
  counting=write
  shift
fi
targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=(80 90)

# The images are those that the crate embeds: the build script says where it left them. All targets, as elsewhere: the
# library alone has dependencies with fewer features, and candle's own kernels would be compiled once more.
out=$(cargo check --quiet --release --all-targets --features cuda --message-format=json |
  sed -n 's/.*"reason":"build-script-executed".*candle-mixed-attention.*"out_dir":"\([^"]*\)".*/\1/p' | tail -1)
[ -f "$out/cuda_images.rs" ] || { echo "no kernel images in '$out'" >&2; exit 1; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/steps"
failed=0

fail() {
  echo "FAIL $*" >&2
  failed=1
}

# require KERNEL PATTERN...: each pattern occurs in the disassembly.
require() {
  local kernel=$1 pattern
  shift
  for pattern in "$@"; do
    grep -qE "$pattern" "$work/sass" || fail "$kernel: no $pattern"
  done
}

# no_spills KERNEL LOG: the assembler, which alone knows, reports none.
no_spills() {
  if grep -E '[1-9][0-9]* bytes (stack frame|spill)' "$2" >&2; then fail "$1: spills"; fi
}

count() { grep -cE "$1" "$work/sass" || true; }

# check KERNEL TARGET CUBIN SHARED_BYTES
check() {
  local kernel=$1 target=$2 cubin=$3 shared=$4 usage registers stack local_bytes pattern
  local name="$kernel ($target)"
  cuobjdump --dump-sass "$cubin" >"$work/sass"
  usage=$(cuobjdump --dump-resource-usage "$cubin" | grep -oE 'REG:[0-9]+ STACK:[0-9]+ SHARED:[0-9]+ LOCAL:[0-9]+')
  read -r registers stack _ local_bytes < <(sed 's/[A-Z]*://g' <<<"$usage")
  [ "$stack" = 0 ] && [ "$local_bytes" = 0 ] || fail "$name: stack $stack, local $local_bytes"
  if grep -qE '\b(LDL|STL)\b' "$work/sass"; then fail "$name: accesses local memory"; fi
  case $kernel in
    *_sm90_*) require "$name" HGMMA UTMALDG SYNCS USETMAXREG LDGSTS MUFU.EX2 ;;
    *_sm80_*) require "$name" HMMA LDSM LDGSTS MUFU.EX2 ;;
    *rotate*) require "$name" LDG.E.128 STG.E.128 ;;
  esac
  case $kernel in
    *_sm[89]0_*)
      cp "$work/sass" "$work/steps/$kernel.$target.sass"
      echo "$registers" >"$work/steps/$kernel.$target.registers"
      ;;
  esac
  printf '%-40s %-7s %9s %12s' "$kernel" "$target" "$registers" "$shared"
  for pattern in HMMA HGMMA LDSM LDGSTS UTMALDG MUFU.EX2; do printf ' %8s' "$(count "$pattern")"; done
  echo
}

printf '%-40s %-7s %9s %12s' kernel target registers 'shared bytes'
printf ' %8s' HMMA HGMMA LDSM LDGSTS UTMALDG EX2
echo
kernels() { sed -n 's/.*name: "\([^"]*\)", shared_bytes: \([0-9]*\),.*/\1 \2/p' "$out/cuda_images.rs"; }

# The assembler takes seconds for a kernel: all processors do it, and what it says is looked at below.
kernels | while read -r kernel _; do
  [ -f "$out/$kernel.cubin" ] || printf '%s\n' "${targets[@]/#/$kernel }"
done | xargs -P "$(nproc)" -L 1 bash -c \
  'ptxas -v -arch="sm_$3" -o "$1/$2.$3.cubin" "$0/$2.ptx" 2>"$1/$2.$3.log"' "$out" "$work"

while read -r kernel shared; do
  if [ -f "$out/$kernel.cubin" ]; then
    no_spills "$kernel" "$out/$kernel.log"
    if grep -E 'Performance Loss|setmaxnreg' "$out/$kernel.log" >&2; then fail "$kernel: its pipeline is not kept"; fi
    check "$kernel" sm_90a "$out/$kernel.cubin" "$shared"
  else
    for target in "${targets[@]}"; do
      no_spills "$kernel (sm_$target)" "$work/$kernel.$target.log"
      check "$kernel" "sm_$target" "$work/$kernel.$target.cubin" "$shared"
    done
  fi
done < <(kernels)
python3 scripts/sass_counts.py "$counting" "$work/steps" scripts/sass_counts.tsv || fail "counts of instructions"
exit "$failed"
