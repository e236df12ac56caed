#!/usr/bin/env bash
# Type-checks the feature `metal` on a machine that is not a Mac. Nothing is linked or run.
#
#   scripts/check-metal.sh                               # check, then clippy, of all targets
#   scripts/check-metal.sh check --lib                   # any cargo command that builds nothing
#
# Off Apple, two things keep the bindings to Metal from being checked: `#[link(kind = "framework")]`, which rustc refuses
# elsewhere (E0455), and the Objective-C runtime, which has to be named. So cargo checks a view of the project (links to
# its files) against a copy of objc2-metal without the former, whose dependencies are told the latter. The project's
# Cargo.lock stays as it is.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ $# -eq 0 ]; then
  "$0" check --all-targets
  exec "$0" clippy --all-targets
fi
command=$1
shift
warnings=()
[ "$command" != clippy ] || warnings=(-- -D warnings)

if [ "$(uname -s)" = Darwin ]; then
  exec cargo "$command" --features metal "$@" "${warnings[@]}"
fi

project=$PWD
work=${CARGO_TARGET_DIR:-$project/target}/check-metal
view=$work/view
rm -rf "$view"
mkdir -p "$view"
shopt -s dotglob
for file in "$project"/*; do
  case ${file##*/} in
    target | .git | Cargo.lock) ;;
    *) ln -s "$file" "$view/" ;;
  esac
done
cp "$project/Cargo.lock" "$view/"
cd "$view"

# The copy of objc2-metal, in the version of the lock file.
cargo fetch --quiet --locked
source=$(cargo metadata --offline --locked --format-version 1 --features metal |
  grep -oE '"manifest_path":"[^"]*/objc2-metal-[0-9][^"/]*/Cargo.toml"' | cut -d'"' -f4 | sort -u)
[ "$(grep -c . <<<"$source")" = 1 ] || { echo "expected one objc2-metal, found: ${source:-none}" >&2; exit 1; }
source=${source%/Cargo.toml}
copy=$work/${source##*/}
if [ ! -e "$copy/.patched" ]; then
  rm -rf "$copy"
  cp -r "$source" "$copy"
  chmod -R u+w "$copy"
  framework='^[[:space:]]*#\[link\(name = "[A-Za-z]+", kind = "framework"\)\]'
  files=$(grep -rlE "$framework" "$copy/src") || { echo "objc2-metal links no framework any more" >&2; exit 1; }
  xargs sed -i -E "/$framework/d" <<<"$files"
  # Features are united over the whole build: naming the runtime here names it for every crate.
  awk '/^\[/ { runtime = ($0 == "[dependencies.objc2]" || $0 == "[dependencies.block2]") }
       runtime && /^features = \[/ { sub(/\[/, "[\"gnustep-2-1\", "); named++ }
       { print }
       END { exit named != 2 }' "$source/Cargo.toml" >"$copy/Cargo.toml" ||
    { echo "objc2-metal depends on other crates than expected" >&2; exit 1; }
  touch "$copy/.patched"
fi

CARGO_TARGET_DIR=$work/target cargo "$command" --features metal \
  --config "patch.crates-io.objc2-metal.path=\"$copy\"" "$@" "${warnings[@]}"
