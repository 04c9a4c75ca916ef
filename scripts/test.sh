#!/usr/bin/env bash
# Does all the set-up and runs every test; arguments go to cargo test, for example: scripts/test.sh --test outage
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
need "${BUILD_PACKAGES[@]}" mosquitto mosquitto-clients openssl python3 python3-venv e2fsprogs faketime iproute2 mount qemu-utils qemu-system-common systemd \
    maven default-jre-headless kcat
need_cargo
need_foreign_python
need_kafka
exec cargo test --locked "$@"
