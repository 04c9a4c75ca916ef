#!/usr/bin/env bash
# Instructions that the gateway spends on a record, counted by valgrind, against the number that is kept in the tree.
#
#   scripts/instructions.sh [--keep]
#
# From a vehicle's message to the commit, the ack and the ZMQ feed, without a subscriber. Counted with few and with many
# records, so that the start is not in it. The program is built for it like the tests' but optimised, so that most of
# what `cargo test` compiled is used again; the number compares with itself and with nothing else. --keep writes it to
# benches/instructions.txt. Exit code 4: it has grown by more than 5 % and nobody said so.
set -euo pipefail
shopt -s inherit_errexit
cd "$(dirname "$0")/.."
. scripts/lib.sh
case $#:${1:-} in
0: | 1:--keep) ;;
*) echo "instructions.sh: there is --keep and no other option: $*" >&2 && exit 2 ;;
esac
kept=benches/instructions.txt
need "${BUILD_PACKAGES[@]}" valgrind
need_cargo
# Its own folder would have all dependencies compiled again.
CARGO_PROFILE_DEV_OPT_LEVEL=2 cargo build --locked --quiet --bin waystation
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp target/debug/waystation "$work/waystation"
"$work/waystation" pki --out "$work/pki" --vehicles 10 >/dev/null

# Of the shell that counts: each has its own.
gateway=''
# count RECORDS : instructions of a gateway that takes so many of each of ten vehicles and ends.
count() {
    local dir port=$((20000 + RANDOM % 20000)) counted
    # This runs in a shell of its own, which ends with whatever fails here.
    trap '[ -z "$gateway" ] || kill -9 "$gateway" 2>/dev/null || true' EXIT
    dir=$(mktemp -d "$work/XXXX")
    cat >"$dir/config.toml" <<END
[listener]
bind = "127.0.0.1:$port"
certificate = "$work/pki/server.pem"
private_key = "$work/pki/server.key"
vehicle_ca = ["$work/pki/vehicle-ca.pem"]
messages_per_second = 100000
handshake_timeout = "60s"
[queue]
path = "$dir/queue"
[records]
"*" = "feed"
[destinations.feed]
type = "zmq"
namespace = "counted"
bind = "ipc://$dir/feed"
END
    valgrind --tool=callgrind --callgrind-out-file="$dir/out" --log-file="$dir/log" \
        "$work/waystation" run --config "$dir/config.toml" >"$dir/said" 2>&1 &
    gateway=$!
    for _ in $(seq 600); do
        ! grep -q 'waystation is ready' "$dir/said" || break
        kill -0 "$gateway" 2>/dev/null || { cat "$dir/said" "$dir/log" >&2 && exit 1; }
        sleep 0.1
    done
    # All of a vehicle's records may wait for their acks: the batches are as large as can be, however slow this machine is.
    "$work/waystation" simulate --pki "$work/pki" --connect "localhost:$port" --vehicles 10 --rate 0 --records "$1" \
        --window 1000 --mix 100,0,0 --linger 120s >"$dir/tally" 2>&1 || { cat "$dir/tally" "$dir/said" >&2 && exit 1; }
    kill "$gateway"
    wait "$gateway" || { cat "$dir/said" >&2 && exit 1; }
    gateway=''
    counted=$(sed -n 's/.*Collected : //p' "$dir/log")
    [ "${counted:-0}" -gt 0 ] || { cat "$dir/log" >&2 && echo "instructions.sh: valgrind has counted nothing" >&2 && exit 1; }
    echo "$counted"
}

# The least of several: what a commit costs is shared by the records that happen to come with it.
record=''
for _ in 1 2 3; do
    few=$(count 100)
    many=$(count 2100)
    this=$(((many - few) / 20000))
    [ "$this" -gt 0 ] || { echo "instructions.sh: $many for many records and $few for few cannot be" >&2 && exit 1; }
    [ -n "$record" ] && [ "$record" -le "$this" ] || record=$this
done
if [ "${1:-}" = --keep ]; then
    echo "$record" >"$kept"
fi
before=$(cat "$kept") || { echo "instructions.sh: $kept is missing; make it with --keep" >&2 && exit 1; }
change=$(awk -v now="$record" -v before="$before" 'BEGIN { printf "%+.1f", (now / before - 1) * 100 }')
echo "instructions a record: $record ($change % of the $before that are kept)"
if awk -v change="$change" 'BEGIN { exit !(change > 5) }'; then
    echo "instructions.sh: more than 5 % more; if it has to be, say why in the commit and keep it: scripts/instructions.sh --keep" >&2
    exit 4
fi
