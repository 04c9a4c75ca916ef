#!/usr/bin/env bash
# Does all the set-up and runs every test; arguments go to cargo test, for example: scripts/test.sh --test outage
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
need "${BUILD_PACKAGES[@]}" mosquitto mosquitto-clients openssl python3 python3-venv e2fsprogs faketime iproute2 mount qemu-utils qemu-system-common systemd \
    maven default-jre-headless kcat
need_cargo
# A vehicle and consumers that are not ours.
if ! target/venv/bin/python -m pip freeze 2>/dev/null | grep -qFf tests/foreign/requirements.txt ||
    ! cmp -s tests/foreign/requirements.txt target/venv/requirements.txt; then
    python3 -m venv target/venv
    target/venv/bin/python -m pip install -q -r tests/foreign/requirements.txt
    cp tests/foreign/requirements.txt target/venv/requirements.txt
fi
# A Kafka broker, from Maven Central.
if ! cmp -s tests/kafka/pom.xml target/kafka-libs/pom.xml; then
    rm -rf target/kafka-libs
    mvn -q -B -f tests/kafka/pom.xml dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$PWD/target/kafka-libs"
    cp tests/kafka/pom.xml target/kafka-libs/pom.xml
fi
exec cargo test --locked "$@"
