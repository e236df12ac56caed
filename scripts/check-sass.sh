#!/usr/bin/env bash
# Looks at the machine code of the CUDA kernels: the instructions that make them fast are there, nothing is spilled to
# local memory. Prints registers and shared memory of each kernel. Needs a toolkit (scripts/cuda-toolkit.sh), no GPU.
#
#   scripts/check-sass.sh              # for sm_80 and sm_90
#   scripts/check-sass.sh 89 120       # for others
set -euo pipefail
cd "$(dirname "$0")/.."

targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=(80 90)

# The images are those that the crate embeds: the build script says where it left them.
out=$(cargo check --quiet --lib --features cuda --message-format=json |
  sed -n 's/.*"reason":"build-script-executed".*candle-mixed-attention.*"out_dir":"\([^"]*\)".*/\1/p' | tail -1)
shopt -s nullglob
images=("$out"/*.ptx "$out"/*.cubin)
[ ${#images[@]} -gt 0 ] || { echo "no kernel images in '$out'" >&2; exit 1; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0

# require FILE KERNEL PATTERN...: each pattern occurs in the disassembly.
require() {
  local file=$1 kernel=$2 pattern
  shift 2
  for pattern in "$@"; do
    grep -qE "$pattern" "$file" || { echo "FAIL $kernel: no $pattern" >&2; failed=1; }
  done
}

# forbid FILE KERNEL PATTERN...: none does.
forbid() {
  local file=$1 kernel=$2 pattern
  shift 2
  for pattern in "$@"; do
    ! grep -qE "$pattern" "$file" || { echo "FAIL $kernel: has $pattern" >&2; failed=1; }
  done
}

printf '%-40s %-7s %9s %12s %6s %6s %6s\n' kernel target registers 'shared bytes' HMMA LDSM LDGSTS
for image in "${images[@]}"; do
  kernel=$(basename "${image%.*}")
  case $image in
    *.cubin) kernel_targets=(90a) ;;
    *) kernel_targets=("${targets[@]}") ;;
  esac
  for target in "${kernel_targets[@]}"; do
    cubin=$work/kernel.cubin
    log=$work/log
    if [[ $image == *.cubin ]]; then
      cp "$image" "$cubin"
    else
      ptxas -v -arch="sm_$target" -o "$cubin" "$image" 2>"$log"
      # Register spills are reported by the assembler only.
      if grep -E '[1-9][0-9]* bytes (stack frame|spill)' "$log" >&2; then
        echo "FAIL $kernel (sm_$target): spills" >&2
        failed=1
      fi
    fi
    cuobjdump --dump-sass "$cubin" >"$work/sass"
    usage=$(cuobjdump --dump-resource-usage "$cubin" | grep -oE 'REG:[0-9]+ STACK:[0-9]+ SHARED:[0-9]+ LOCAL:[0-9]+')
    read -r registers stack _ local < <(sed 's/[A-Z]*://g' <<<"$usage")
    # Shared memory is dynamic: the table of images knows it.
    shared=$(sed -n "s/.*name: \"$kernel\", shared_bytes: \([0-9]*\),.*/\1/p" "$out/cuda_images.rs")
    [ "$stack" = 0 ] && [ "$local" = 0 ] || { echo "FAIL $kernel (sm_$target): stack $stack, local $local" >&2; failed=1; }
    forbid "$work/sass" "$kernel (sm_$target)" '\bLDL\b' '\bSTL\b'
    case $kernel in
      *_sm90_*) require "$work/sass" "$kernel" HGMMA UTMALDG SYNCS 'USETMAXREG' ;;
      *_sm80_*) require "$work/sass" "$kernel (sm_$target)" HMMA LDSM LDGSTS 'MUFU.EX2' ;;
      *rotate*) require "$work/sass" "$kernel (sm_$target)" 'LDG.E.128' 'STG.E.128' ;;
    esac
    count() { grep -cE "$1" "$work/sass" || true; }
    printf '%-40s %-7s %9s %12s %6s %6s %6s\n' "$kernel" "sm_$target" "$registers" "$shared" "$(count HMMA)" \
      "$(count LDSM)" "$(count LDGSTS)"
  done
done
exit "$failed"
