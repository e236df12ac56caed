#!/usr/bin/env bash
# The crate as it would be published: at most 2 MB, and it builds from the package alone.
set -euo pipefail
cd "$(dirname "$0")/.."

most=$((2 * 1000 * 1000))
target=$PWD/target

# Changes that are not committed are taken as they are.
cargo package -q -p candle-mixed-attention --no-verify --allow-dirty
archive=$(ls -t target/package/candle-mixed-attention-*.crate | head -n 1)
bytes=$(wc -c < "$archive")
echo "$archive: $bytes bytes"
if [ "$bytes" -gt "$most" ]; then
  echo "the package is larger than $most bytes; 'cargo package --list' shows what is in it"
  exit 1
fi

# Outside of the workspace, but with what is compiled already: cargo's own verification would compile candle once more.
elsewhere=$(mktemp -d)
trap 'rm -rf "$elsewhere"' EXIT
tar -xzf "$archive" -C "$elsewhere"
cd "$elsewhere"/candle-mixed-attention-*
cargo check --target-dir "$target" --lib --examples
