#!/usr/bin/env bash
# Does all the set-up and runs the demo; arguments go to it, for example: scripts/demo.sh --for 60s --outage 20s
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
need "${BUILD_PACKAGES[@]}"
need_cargo
echo "building (a few minutes the first time)" >&2
cargo build --release --locked
exec target/release/waystation demo "$@"
