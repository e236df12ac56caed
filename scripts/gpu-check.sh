#!/usr/bin/env bash
# Everything that only a machine with an NVIDIA GPU can tell: tests, compute-sanitizer, benches, and PyTorch on the same
# workloads. A part that fails does not keep the others from running; a summary ends the output.
#
#   scripts/gpu-check.sh                        # all parts: first tests sanitizer bench peers
#   scripts/gpu-check.sh tests bench            # some of them
#   scripts/gpu-check.sh variants               # on request: how the rows of the Hopper kernels compare
#
# On a GPU that has never run these kernels, start with `first`: one step after the other, single instructions before whole
# kernels and the simplest of these before the one for Hopper, each under a time limit, and none after one that fails: a
# kernel that hangs keeps the GPU busy. Without a GPU, the steps that are small run on what stands for the driver (with
# MIXED_ATTENTION_CUDA_DEVICE=1 the first of them on its Hopper):
#
#   eval "$(scripts/cuda-toolkit.sh)" && eval "$(scripts/cuda-stand-in.sh)"
#   GPU_CHECK_STEPS='^primitive|^small|^f32$' LD_LIBRARY_PATH="$LD_LIBRARY_PATH:$CUDA_HOME/lib" scripts/gpu-check.sh first
#
# Built are the executables here, which needs Rust and the CUDA toolkit (scripts/cuda-toolkit.sh installs one). For a GPU
# machine without them, they are packed where they are; the folder goes beside a copy of the repository:
#
#   scripts/gpu-check.sh pack FOLDER
#   GPU_CHECK_BINARIES=FOLDER scripts/gpu-check.sh
#
# Libraries of CUDA that the machine lacks are looked for in PyTorch's packages (nvidia.cu13). compute-sanitizer is taken
# from PATH or from these packages: pip install 'nvidia-cuda-sanitizer-api==13.0.*'. The last part needs PyTorch.
#
#   GPU_CHECK_BENCH='cuda/f16 --measurement-time 5'     # arguments of the bench, instead of all of it in minutes
#   GPU_CHECK_PEERS='--dtypes f16 --workloads A,C'      # arguments of benches/peers/torch_attention.py
#   GPU_CHECK_LIMIT=600                                 # seconds of a step of `first` and `variants`
#   GPU_CHECK_STEPS='^primitive|^small'                 # the steps of `first` whose names match, instead of all
#   MIXED_ATTENTION_CUDA_DEVICE=1                       # the second GPU
#
# Logs go to target/gpu-check. Exit status: 0 all is well, 1 something failed, 2 wrong usage, 3 something was skipped.
set -uo pipefail
cd "$(dirname "$0")/.." || exit

logs=${CARGO_TARGET_DIR:-target}/gpu-check
names=(golden properties behaviour windows gpu attention)
# Small calls for the memory checker: every kind of mask, cache, rotation and group; rows that are copied; split keys.
sanitized=(cuda::rows_at_odd_addresses_are_read cuda::split_keys_rope_padding_and_cache)
# A test that runs all others again, in threads, which candle does not order.
one_thread=(--skip errors_hold_no_backtrace)
declare -A executables=()
libraries=
summary=()
failed=0
skipped=0

note() {
  summary+=("$(printf '%-52s %s' "$1" "$2")")
  printf '== %s: %s\n' "$1" "$2"
}

fail() {
  failed=1
  note "$1" "FAILED: $2"
}

skip() {
  skipped=1
  note "$1" "skipped: $2"
}

# run NAME COMMAND...: with CUDA's libraries; keeps the log.
run() {
  local name=$1 before=$SECONDS
  shift
  printf '\n== %s: %s\n' "$name" "$*"
  if LD_LIBRARY_PATH=$libraries "$@" 2>&1 | tee "$logs/$name.log"; then
    note "$name" "passed in $((SECONDS - before)) s"
  else
    fail "$name" "see $logs/$name.log"
  fi
}

# Where a cargo command left its executables: lines of name and path.
built() {
  cargo "$@" --features cuda --message-format=json |
    sed -n 's/.*"target":{[^}]*"name":"\([^"]*\)".*"executable":"\([^"]*\)".*/\1 \2/p'
}

build() {
  local name path lines
  lines=$(built test --release --test golden --test properties --test behaviour --test windows --test gpu --no-run) &&
    lines+=$'\n'$(built bench --bench attention --no-run) || return
  while read -r name path; do executables[$name]=$path; done <<<"$lines"
  scripts/cuda-primitives.sh "$work"
}

decompress() {
  if command -v xz >/dev/null; then
    xz --decompress --stdout "$1"
  else
    python3 -c 'import lzma, shutil, sys; shutil.copyfileobj(lzma.open(sys.argv[1]), sys.stdout.buffer)' "$1"
  fi
}

unpack() {
  local name
  for name in "${names[@]}"; do
    decompress "$GPU_CHECK_BINARIES/$name.xz" >"$work/$name" || return
    chmod +x "$work/$name"
    executables[$name]=$work/$name
  done
  cp "$GPU_CHECK_BINARIES"/*.ptx "$work"
}

pack() {
  local folder=$1 name
  mkdir -p "$folder" || return
  for name in "${names[@]}"; do
    strip -o "$work/$name" "${executables[$name]}" || return
    xz --threads=0 --stdout "$work/$name" >"$folder/$name.xz" || return
  done
  cp "$work"/*.ptx "$folder" || return
  du -h "$folder"/*.xz
}

# The folder of a toolkit made of Python packages, as PyTorch brings them.
python_toolkit() {
  python3 -c 'import nvidia.cu13; print(list(nvidia.cu13.__path__)[0])' 2>/dev/null
}

# not_found: libraries that the executables need and the loader does not find.
not_found() {
  LD_LIBRARY_PATH=$libraries ldd "${executables[gpu]}" | awk '/not found/ { print $1 }' | sort -u | paste -sd ' '
}

find_libraries() {
  libraries=${LD_LIBRARY_PATH:-}
  local missing toolkit
  missing=$(not_found)
  [ -n "$missing" ] || return 0
  printf 'not on the usual paths: %s\n' "$missing"
  if toolkit=$(python_toolkit); then libraries=$toolkit/lib${libraries:+:$libraries}; fi
  missing=$(not_found)
  [ -z "$missing" ] || fail libraries "not found: $missing"
  [ -z "$missing" ]
}

# Why the tests would find no device, or nothing.
no_device() {
  LD_LIBRARY_PATH=$libraries "${executables[gpu]}" --list 2>/dev/null | sed -n 's/^cuda::[a-z_0-9]* (\(.*\)): test$/\1/p' |
    head -1
}

# A step of `first`: fewer seconds than anybody would wait for a kernel that hangs. One thread, because candle lets no thread's
# stream wait for another's.
limited() {
  local name=$1
  shift
  [[ $name =~ ${GPU_CHECK_STEPS:-.} ]] || return 0
  run "first-$name" timeout --kill-after=10 "${GPU_CHECK_LIMIT:-600}" "$@" --test-threads 1
  [ "$failed" = 0 ]
}

# gpu_step NAME [ARGUMENT...]: one of the tests in tests/gpu, or several.
gpu_step() { limited "$1" "${executables[gpu]}" "cuda::$1" "${@:2}"; }

# What can go wrong, from the simplest.
first() {
  local name
  # Single instructions, with the driver's tensor maps: what the emulator knows of them. How tensor cores cut sums off is told
  # and stops nothing.
  gpu_step primitive --skip cut_off || return
  gpu_step primitive::cut_off || failed=0
  # f32, then head_dims that only the kernel for every GPU has.
  limited f32 "${executables[golden]}" '[cuda f32]' || return
  gpu_step every_multiple_of_8_in_f32 || return
  gpu_step every_multiple_of_8_beyond_128 || return
  # One feature after the other, the kernel for Hopper first with whole tiles; then every head_dim.
  for name in whole_tiles padded_channels a_rest_of_keys hidden_keys split_keys rotated_keys a_cache batches; do
    gpu_step "small::$name" || return
  done
  gpu_step every_multiple_of_8_up_to_128 || return
  # Rows that the copy engine may not read, or not as they are.
  gpu_step rows_at_odd_addresses_are_read || return
  gpu_step heads_that_share_their_keys_are_read_in_place || return
  # Everything else of a call, at once.
  gpu_step split_keys_rope_padding_and_cache || return
  gpu_step windows_biases_and_log_sum_exps || return
  limited golden "${executables[golden]}" cuda || return
  # What depends on time.
  for name in repeats_have_the_same_bits threads_share_a_plan two_devices_share_a_plan; do gpu_step "$name" || return; done
  # Odd calls.
  limited behaviour "${executables[behaviour]}" "${one_thread[@]}" || return
  limited windows "${executables[windows]}" || return
  gpu_step tf32_is_near_and_not_the_same
}

# The options of the Hopper kernels that only a GPU can choose between, on two workloads: kernels are built anew for each.
variants() {
  local table=src/kernels/cuda/tiling.rs turns polynomial pinned name
  if [ -n "${GPU_CHECK_BINARIES:-}" ]; then
    skip variants 'they need the CUDA toolkit: packed executables have one table'
    return
  fi
  cp "$table" "$work/tiling.rs" || return
  for turns in false true; do
    for polynomial in 0 1 2; do
      for pinned in false true; do
        name=variant-turns-$turns-polynomial-$polynomial-pinned-$pinned
        sed -e "s/take_turns: [a-z]*,/take_turns: $turns,/" -e "s/polynomial: [0-9]*,/polynomial: $polynomial,/" \
          -e "s/pin_exponentials: [a-z]*,/pin_exponentials: $pinned,/" "$work/tiling.rs" >"$table"
        run "$name" timeout --kill-after=10 "${GPU_CHECK_LIMIT:-600}" cargo bench --features cuda --bench attention -- \
          --warm-up-time 0.5 --measurement-time 2 --noplot 'cuda/f16/(A self|G dense)/fused'
      done
    done
  done
  cp "$work/tiling.rs" "$table"
}

tests() {
  run golden "${executables[golden]}" --test-threads 1 cuda
  run behaviour "${executables[behaviour]}" --test-threads 1 "${one_thread[@]}"
  run windows "${executables[windows]}" --test-threads 1
  PROPTEST_CASES=${PROPTEST_CASES:-400} run properties "${executables[properties]}"
  # One after the other: two of them need most of the device's memory.
  run gpu "${executables[gpu]}" --test-threads 1 cuda::
}

# Known false reports: racecheck and synccheck do not know all of wgmma, TMA and named barriers that only some warps meet, so
# what they say of a kernel for Hopper is a reason to look and no proof. memcheck is.
sanitizer() {
  local checker tool name toolkit
  if ! checker=$(command -v compute-sanitizer); then
    toolkit=$(python_toolkit)
    checker=$toolkit/bin/compute-sanitizer
    [ -f "$checker" ] || { skip sanitizer "no compute-sanitizer"; return; }
    chmod +x "$checker" "$toolkit"/compute-sanitizer/* 2>/dev/null
  fi
  for tool in memcheck racecheck synccheck; do
    local checked=("$checker" --tool "$tool" --error-exitcode 1)
    run "$tool-golden" "${checked[@]}" "${executables[golden]}" --test-threads 1 'mixed/' --skip reference --skip fused
    for name in "${sanitized[@]}"; do
      run "$tool-${name#cuda::}" "${checked[@]}" "${executables[gpu]}" --test-threads 1 --exact "$name"
    done
  done
}

bench() {
  local arguments
  read -ra arguments <<<"${GPU_CHECK_BENCH:-cuda/ --warm-up-time 0.5 --measurement-time 2 --noplot}"
  run bench "${executables[attention]}" --bench "${arguments[@]}"
}

peers() {
  local arguments
  if ! python3 -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' 2>/dev/null; then
    skip peers "no PyTorch that sees a GPU"
    return
  fi
  read -ra arguments <<<"${GPU_CHECK_PEERS:---seconds 0.3}"
  run peers env PYTHONUNBUFFERED=1 LD_LIBRARY_PATH="${LD_LIBRARY_PATH:-}" python3 benches/peers/torch_attention.py \
    --device cuda --ours "$logs/bench.log" "${arguments[@]}"
}

command=check
parts=("$@")
if [ "${1:-}" = pack ]; then
  command=pack
  [ $# -eq 2 ] || { echo 'usage: scripts/gpu-check.sh pack FOLDER' >&2; exit 2; }
else
  [ $# -gt 0 ] || parts=(first tests sanitizer bench peers)
  for part in "${parts[@]}"; do
    case $part in
      first | tests | sanitizer | bench | peers | variants) ;;
      *)
        echo "unknown part '$part': first, tests, sanitizer, bench, peers, variants, or pack FOLDER" >&2
        exit 2
        ;;
    esac
  done
fi
mkdir -p "$logs" || exit
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Paths that were compiled into the executables are those of the machine that built them.
export MIXED_ATTENTION_GOLDEN=${MIXED_ATTENTION_GOLDEN:-$PWD/tests/golden}
export MIXED_ATTENTION_PRIMITIVES=$work
export CRITERION_HOME=${CRITERION_HOME:-${CARGO_TARGET_DIR:-$PWD/target}/criterion}

# Whether our executables are there and can be started.
ready=
if [ "$command" = pack ]; then
  if ! build; then fail build 'cargo cannot build the tests and benches'
  elif ! pack "$2"; then fail pack "cannot write to $2"
  fi
elif [ "${parts[*]}" = peers ]; then
  ready=not-needed
elif [ -n "${GPU_CHECK_BINARIES:-}" ]; then
  if unpack; then find_libraries && ready=yes; else fail unpack "$GPU_CHECK_BINARIES lacks ${names[*]/%/.xz}"; fi
elif build; then
  find_libraries && ready=yes
else
  fail build 'cargo cannot build the tests and benches'
fi

if [ "$command" = check ]; then
  nvidia-smi --query-gpu=name,driver_version,compute_cap,clocks.max.sm,power.limit --format=csv 2>/dev/null |
    tee "$logs/device.log"
  reason=
  # Set where a kernel failed before anything else was tried.
  never_ran=
  [ "$ready" != yes ] || reason=$(no_device)
  for part in "${parts[@]}"; do
    if [ "$part" = peers ]; then peers
    elif [ "$part" != first ] && [ -n "$never_ran" ]; then skip "$part" 'the first steps failed'
    elif [ -z "$ready" ]; then skip "$part" 'no executables'
    elif [ -n "$reason" ]; then skip "$part" "no device: $reason"
    elif [ "$part" = first ]; then first || never_ran=yes
    else "$part"
    fi
  done
fi

if [ ${#summary[@]} -gt 0 ]; then
  printf '\n'
  printf '%s\n' "${summary[@]}"
fi
[ "$failed" = 0 ] || exit 1
[ "$skipped" = 0 ] || exit 3
