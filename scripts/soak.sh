#!/usr/bin/env bash
# The soak test: a gateway for as long as you like, with vehicles, a real mosquitto, a real Kafka and ZMQ subscribers, while
# brokers are killed and stopped, certificates renewed, the configuration changed, consumers slow, and vehicles killed.
#
#   scripts/soak.sh --minutes N [--out FOLDER] [--vehicles 20] [--rate 10] [--binary FILE] [--docs]
#   scripts/soak.sh --self-test
#
# --out is target/soak unless said otherwise: soak.json, soak.csv and soak.svg are written there. --vehicles are so many,
# with --rate records a second each. --binary takes a program instead of building it. --docs puts chart and result into
# docs/. --self-test tests the judgement of growth and loss alone, in a second. docs/soak.md says how to read it all.
#
# Exit code 0: nothing is lost and nothing grows. 1: something is or does, or it could not be brought to its end.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
export PYTHONDONTWRITEBYTECODE=1
minutes='' out=target/soak binary='' more=()
while [ $# -gt 0 ]; do
    case $1 in
    --minutes) minutes=${2:?--minutes: how long} && shift ;;
    --out) out=${2:?--out: a folder} && shift ;;
    --vehicles | --rate) more+=("$1" "${2:?$1: a number}") && shift ;;
    --binary) binary=$(realpath "${2:?--binary: a file}") && shift ;;
    --docs) more+=(--docs docs) ;;
    --self-test)
        need python3
        cd scripts && exec python3 -m unittest discover --start-directory soak --top-level-directory .
        ;;
    *) echo "soak.sh: $1 is no option; there are --minutes, --out, --vehicles, --rate, --binary, --docs and --self-test" >&2 && exit 2 ;;
    esac
    shift
done
[ -n "$minutes" ] || { echo "soak.sh: say how long: --minutes N" >&2 && exit 2; }
# Before anything is installed or built; the soak itself looks at all of them.
[[ $minutes =~ ^[0-9]{1,6}(\.[0-9]+)?$ && 10#${minutes%%.*} -ge 2 ]] ||
    { echo "soak.sh: --minutes $minutes: a number, at least 2" >&2 && exit 2; }
need mosquitto mosquitto-clients openssl python3 python3-venv maven default-jre-headless kcat
need_foreign_python
need_kafka
if [ -z "$binary" ]; then
    need "${BUILD_PACKAGES[@]}"
    need_cargo
    cargo build --release --locked
    binary=target/release/waystation
fi
PYTHONPATH=scripts exec python3 -m soak --minutes "$minutes" --out "$out" --binary "$binary" \
    --python "$FOREIGN_PYTHON" --kafka "$KAFKA_LIBRARIES" "${more[@]}"
