#!/usr/bin/env bash
# The demo in a browser tab.
#
#   scripts/web.sh          # builds it and serves it on this machine alone
#   scripts/web.sh build    # builds it into target/page, a folder for any web server
#   scripts/web.sh test     # opens it in Chromium, and compares it with the program
set -euo pipefail
cd "$(dirname "$0")/.."

target=wasm32-wasip1
page=target/page
# Downloaded before it runs, so that what runs in no loop is optimised for size. Those crates whose loops are hot have levels
# of their own in Cargo.toml.
small=(--config 'profile.release.strip=true')
for crate in '"*"' predict; do
  small+=(--config "profile.release.package.$crate.opt-level='s'")
done

build() {
  rustup target add "$target"
  RUSTFLAGS="-C target-feature=+simd128" cargo build --release "${small[@]}" -p web --target "$target"
  rm -rf "$page"
  mkdir -p "$page"
  cp web/page/* "$page"
  cp "target/$target/release/web.wasm" "$page"
}

check() {
  local tools
  if ! python3 -c "import playwright, numpy" 2>/dev/null; then
    tools=$(mktemp -d)
    python3 -m venv "$tools"
    "$tools/bin/pip" install --quiet --disable-pip-version-check playwright numpy
    PATH=$tools/bin:$PATH
  fi
  cargo build --release -p predict
  python3 web/tests/page.py "$page" target/release/predict "$@"
}

case ${1:-serve} in
  build) build ;;
  serve)
    build
    echo "http://127.0.0.1:8000/ (Ctrl-C ends it)"
    python3 -m http.server --bind 127.0.0.1 --directory "$page" 8000
    ;;
  test)
    build
    check "${@:2}"
    ;;
  *)
    echo "usage: scripts/web.sh [build | serve | test [SCREENSHOT]]" >&2
    exit 2
    ;;
esac
