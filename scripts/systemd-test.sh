#!/usr/bin/env bash
# Installs the package in a Debian with a running systemd, lets vehicles drive against it, and does to it what happens to a
# gateway in the field: a renewed certificate, a kill, a hang, a full disk, upgrade, downgrade, reboot, removal.
#
#   scripts/systemd-test.sh [--profile dev|release] [--suite bookworm|trixie] [--deb FILE --upgrade FILE]
#
# --profile dev (the default) packs what `cargo test` builds; release takes a release build. --suite is this machine's
# unless said otherwise; it has to have the libraries that the package was built against.
# The upgrade is done under socket activation and may refuse no connection.
#
# Exit code 0: all of it holds. 1: something does not. 3: not run, because this machine cannot boot a container.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
profile=dev deb='' upgrade='' suite=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
while [ $# -gt 0 ]; do
    case $1 in
    --profile) profile=${2:?--profile: dev or release} ;;
    --suite) suite=${2:?--suite: a Debian release} ;;
    --deb) deb=$(realpath "${2:?--deb: a package}") ;;
    --upgrade) upgrade=$(realpath "${2:?--upgrade: the same package of a higher version}") ;;
    *) echo "systemd-test.sh: $1 is no option; there are --profile, --suite, --deb and --upgrade" >&2 && exit 2 ;;
    esac
    shift 2
done
host_dir=$PWD/target/systemd-test/$suite
. scripts/systemd-host.sh
if ! why=$(host_possible); then
    echo "systemd-test.sh: not run: $why" >&2
    exit 3
fi
need mmdebstrap systemd-container openssl python3

# rebuild VERSION : the package of the same sources under another version, built anew.
rebuild() {
    local tree=$host_dir/rebuilt
    rm -rf "$tree"
    mkdir -p "$tree"
    git ls-files -z | xargs -0 cp --parents --target-directory "$tree"
    # What others' code was compiled to is the same.
    ln -s "$PWD/target" "$tree/target"
    sed -i "0,/^version = .*/s//version = \"$1\"/" "$tree/Cargo.toml"
    sed -i "/^name = \"waystation\"\$/{n;s/.*/version = \"$1\"/}" "$tree/Cargo.lock"
    (cd "$tree" && scripts/build-deb.sh --profile "$profile" | tail -n 1)
}

started=$SECONDS
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
[ -n "$deb" ] || deb=$(scripts/build-deb.sh --profile "$profile" | tail -n 1)
next=${version%.*}.$((${version##*.} + 1))
[ -n "$upgrade" ] || upgrade=$(rebuild "$next")
[ -n "$upgrade" ] || { echo "systemd-test.sh: no package of version $next" >&2 && exit 1; }
next=$(dpkg-deb --field "$upgrade" Version)
# The container has no network, so what apt would fetch is in it from the start.
mapfile -t libraries < <(dpkg-deb --field "$deb" Depends | tr ',' '\n' | sed 's/^ *//; s/[ (|].*//' | grep -v '^systemd$')
host_make "$suite" "${libraries[@]}" ca-certificates passwd socat
built=$SECONDS

work=$(mktemp -d)
steps=0
load=''
ended() {
    local code=$?
    if [ "$code" -ne 0 ]; then
        echo "--- the journal's end:" >&2
        host_exec journalctl --no-pager --unit waystation --lines 40 >&2 || true
    fi
    [ -z "$load" ] || kill "$load" 2>/dev/null || true
    host_down
    rm -rf "$work"
}
trap ended EXIT
trap 'exit 130' INT TERM

step() { steps=$((steps + 1)) && echo "[$((SECONDS - built)) s] $*"; }
failed() { echo "systemd-test.sh: FAILED: $*" >&2 && exit 1; }
# same WHAT WANTED FOUND
same() { [ "$2" = "$3" ] || failed "$1: \"$3\", and \"$2\" was expected"; }
# within SECONDS WHAT COMMAND...
within() {
    local deadline=$((SECONDS + $1)) what=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$deadline" ] || failed "not in time: $what"
        sleep 0.1
    done
}
of_unit() { host_exec systemctl show --property "$1" --value waystation.service; }
is_active() { [ "$(of_unit ActiveState)" = active ]; }
main_pid() { of_unit MainPID; }
restarted() { [ "$(main_pid)" != "$1" ] && is_active; }
# A file inside, from standard input.
put() { host_exec sh -c "cat >'$1'"; }
apt() { host_exec apt-get install --yes --quiet --quiet --allow-downgrades "$1" >"$work/apt" 2>&1 </dev/null || { cat "$work/apt" >&2 && failed "apt-get install $1"; }; }

# Twenty vehicles, whose acknowledged transaction ids are kept in /srv/acks.
vehicles=(waystation simulate --pki /srv/pki --connect localhost:443 --vehicles 20 --rate 20 --linger 60s
    --remember /srv/acks --json)
# drive SECONDS : in the background.
drive() {
    host_exec "${vehicles[@]}" --duration "$1s" >"$work/tally" 2>"$work/vehicles" &
    load=$!
    sleep 1
}
# arrive : waits for the vehicles; everything has to be acknowledged.
arrive() {
    wait "$load" || { cat "$work/vehicles" >&2 && failed "the vehicles: $(cat "$work/tally")"; }
    load=''
}
tally() { python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))[sys.argv[2]])' "$work/tally" "$1"; }
# Acknowledged and not (yet) at the destination.
missing() {
    host_exec sort -u /srv/acks >"$work/acked"
    host_exec sh -c 'cat /var/lib/waystation/records.jsonl' | grep -o '"txid":"[^"]*"' | cut -d '"' -f 4 | sort -u >"$work/arrived"
    comm -23 "$work/acked" "$work/arrived"
}
none_missing() { [ -z "$(missing)" ]; }
nothing_lost() {
    within 30 "$1: every acknowledged record at its destination" none_missing
    echo "    $1: $(wc -l <"$work/acked") acknowledged so far, 0 lost; $(tally connections) connections, $(tally resent) sent again"
}
served() {
    nsenter --target "$(host_leader)" --net -- openssl s_client -connect localhost:443 </dev/null 2>/dev/null |
        openssl x509 -noout -serial
}

# An authority of its own, so that the certificate can be renewed.
issue() {
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=localhost" -days 30 -set_serial "$2" \
        -addext subjectAltName=DNS:localhost -addext basicConstraints=critical,CA:FALSE \
        -CA "$work/ca.pem" -CAkey "$work/ca.key" -keyout "$work/$1.key" -out "$work/$1.pem" 2>"$work/openssl" ||
        { cat "$work/openssl" >&2 && failed "openssl"; }
}
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=depot CA" -days 30 \
    -keyout "$work/ca.key" -out "$work/ca.pem" 2>/dev/null
issue first 1 && issue second 2

# Nothing of ours is in it yet: what keeps it from booting is the machine's.
if ! host_up; then
    echo "systemd-test.sh: not run: a Debian with systemd does not boot here" >&2
    exit 3
fi
cp "$deb" "$host_dir/share/waystation.deb"
cp "$upgrade" "$host_dir/share/waystation-upgrade.deb"
systemd=$(host_exec systemctl --version | sed -n '1s/^systemd \([0-9]*\).*/\1/p')

step "installed with apt on $suite, systemd $systemd"
apt /mnt/waystation.deb
grep -q 'systemctl enable --now waystation' "$work/apt" || failed "the message with the next steps: $(cat "$work/apt")"
same "after the installation" "disabled inactive" "$(host_exec systemctl is-enabled waystation || true) $(of_unit ActiveState)"
same "the state's directory" "700 waystation" "$(host_exec stat -c '%a %U' /var/lib/waystation)"
same "the configuration" "600 waystation" "$(host_exec stat -c '%a %U' /etc/waystation/config.toml)"
same "Type=" "$([ "$systemd" -ge 253 ] && echo notify-reload || echo notify)" "$(of_unit Type)"
verify() { host_exec systemd-analyze verify --man=no waystation.service waystation.socket >"$work/verify" 2>&1 && [ ! -s "$work/verify" ]; }
verify || { cat "$work/verify" >&2 && failed "systemd-analyze verify"; }
host_exec mkdir -p /etc/systemd/system/waystation.service.d
for example in letsencrypt port-443 socket-activation; do
    host_exec cp "/usr/share/doc/waystation/examples/$example.conf" /etc/systemd/system/waystation.service.d/
    verify || { cat "$work/verify" >&2 && failed "systemd-analyze verify with $example.conf"; }
    host_exec rm "/etc/systemd/system/waystation.service.d/$example.conf"
done
same "MemoryMax= and LimitNOFILE=" "536870912 65536" "$(of_unit MemoryMax) $(of_unit LimitNOFILE)"
exposure=$(host_exec systemd-analyze security --no-pager waystation.service | sed -n 's/.*exposure level[^:]*: \([0-9.]*\).*/\1/p')
echo "    systemd-analyze security: $exposure"
python3 -c 'import sys; sys.exit(float(sys.argv[1]) > 1.4)' "$exposure" || failed "systemd-analyze security: $exposure, more than 1.4"

step "configured, checked, enabled"
host_exec waystation pki --out /srv/pki --vehicles 20 >/dev/null
host_exec cp /srv/pki/vehicle-ca.pem /etc/waystation/vehicle-ca.pem
put /srv/pki/server-ca.pem <"$work/ca.pem"
# give NAME : the certificate and key as a technician puts them there.
give() {
    host_exec sh -c 'umask 077; cat >/etc/waystation/tls/privkey.pem.new' <"$work/$1.key"
    host_exec sh -c 'umask 077; cat >/etc/waystation/tls/fullchain.pem.new' <"$work/$1.pem"
    host_exec sh -c 'cd /etc/waystation/tls && chown waystation: *.new && mv privkey.pem.new privkey.pem && mv fullchain.pem.new fullchain.pem'
}
give first
put /etc/waystation/config.toml <<'END'
[listener]
certificate = "/etc/waystation/tls/fullchain.pem"
private_key = "/etc/waystation/tls/privkey.pem"
vehicle_ca = ["/etc/waystation/vehicle-ca.pem"]
[queue]
keep_free = "32 MiB"
segment_size = "1 MiB"
max_bytes = "16 MiB"
[records]
"*" = ["file", "depot"]
[destinations.file]
type = "log"
required = true
path = "/var/lib/waystation/records.jsonl"
[destinations.depot]
type = "zmq"
bind = "ipc:///run/waystation/records.ipc"
namespace = "tesla_telemetry"
END
host_exec waystation check >"$work/check" 2>&1 || { cat "$work/check" >&2 && failed "waystation check"; }
host_exec systemctl enable --quiet --now waystation
same "after the start" active "$(of_unit ActiveState)"

step "the ipc socket: members of the group reach it, others do not"
host_exec useradd --groups waystation subscriber
host_exec useradd stranger
# The first byte of a ZMQ greeting is 0xff.
greeting() { host_exec setpriv --reuid "$1" --regid "$1" --init-groups -- timeout 2 socat -u UNIX-CONNECT:/run/waystation/records.ipc STDOUT 2>"$work/socat" | head -c 1 | od -An -tx1 | tr -d ' '; }
same "a member of the group hears" ff "$(greeting subscriber || true)"
same "somebody else hears" '' "$(greeting stranger || true)"
grep -q 'Permission denied' "$work/socat" || failed "somebody else: $(cat "$work/socat")"
host_exec setpriv --reuid subscriber --regid subscriber --init-groups -- sh -c '! cat /etc/waystation/config.toml && ! ls /etc/waystation/tls && ! ls /var/lib/waystation' 2>/dev/null ||
    failed "a member of the group can read the configuration, the keys or the state"

step "a new certificate under load, with a reload"
same "the certificate served" serial=01 "$(served)"
drive 6
pid=$(main_pid)
give second
host_exec systemctl reload waystation
within 5 "the new certificate" eval '[ "$(served)" = serial=02 ]'
arrive
same "connections of 20 vehicles" 20 "$(tally connections)"
same "the process" "$pid" "$(main_pid)"
nothing_lost "reload"

step "SIGKILL under load"
drive 6
pid=$(main_pid)
host_exec systemctl kill --signal=KILL --kill-whom=main waystation
within 20 "a start after SIGKILL" restarted "$pid"
arrive
nothing_lost "SIGKILL"

step "a hang under load: the watchdog"
printf '[Service]\nWatchdogSec=3s\nLimitCORE=0\n' | put /etc/systemd/system/waystation.service.d/watchdog.conf
host_exec systemctl daemon-reload
host_exec systemctl restart waystation
drive 10
pid=$(main_pid)
host_exec systemctl kill --signal=STOP --kill-whom=main waystation
within 20 "a start after a hang" restarted "$pid"
arrive
nothing_lost "watchdog"
host_exec journalctl --unit waystation --grep 'Watchdog timeout' --quiet --no-pager >/dev/null || failed "no word of the watchdog in the journal"
host_exec rm /etc/systemd/system/waystation.service.d/watchdog.conf
host_exec systemctl daemon-reload

step "a full disk"
host_exec systemctl stop waystation
host_exec mount -t tmpfs -o size=80M,mode=0700,uid=waystation,gid=waystation tmpfs /var/lib/waystation
host_exec mv /srv/acks /srv/acks.before
host_exec systemctl start waystation
pid=$(main_pid)
drive 12
host_exec sh -c 'head -c 200M /dev/zero >/var/lib/waystation/others' 2>/dev/null || true
sleep 4
same "on the full disk" active "$(of_unit ActiveState)"
host_exec rm /var/lib/waystation/others
arrive
nothing_lost "full disk"
same "the process" "$pid" "$(main_pid)"
host_exec journalctl --unit waystation --output json --no-pager >"$work/journal"
grep -q 'full' "$work/journal" || failed "no word of the full disk in the journal"
host_exec systemctl stop waystation
host_exec umount /var/lib/waystation
host_exec mv /srv/acks.before /srv/acks

step "a key that only root can read, as a credential"
host_exec install -d -m 0700 /etc/letsencrypt/live/depot
host_exec sh -c 'umask 077; cat >/etc/letsencrypt/live/depot/privkey.pem' <"$work/second.key"
host_exec sh -c 'umask 077; cat >/etc/letsencrypt/live/depot/fullchain.pem' <"$work/second.pem"
host_exec sh -c 'sed s/NAME/depot/ /usr/share/doc/waystation/examples/letsencrypt.conf >/etc/systemd/system/waystation.service.d/letsencrypt.conf'
host_exec sed -i 's|/etc/waystation/tls/|/run/credentials/waystation.service/|' /etc/waystation/config.toml
host_exec rm -r /etc/waystation/tls
host_exec systemctl daemon-reload
host_exec systemctl start waystation
same "with the credential" active "$(of_unit ActiveState)"

step "upgrade under load, with waystation.socket"
host_exec systemctl stop waystation
host_exec cp /usr/share/doc/waystation/examples/socket-activation.conf /etc/systemd/system/waystation.service.d/
host_exec systemctl daemon-reload
host_exec systemctl enable --quiet --now waystation.socket waystation.service
drive 10
pid=$(main_pid)
# One connection after the other; each that is refused is a line.
host_exec bash -c 'for i in $(seq 200); do (: <>/dev/tcp/localhost/443) 2>/dev/null || echo refused; sleep 0.03; done' >"$work/refused" &
prober=$!
apt /mnt/waystation-upgrade.deb
same "the version" "waystation $next" "$(host_exec waystation --version)"
restarted "$pid" || failed "the new version does not run"
arrive
wait "$prober"
nothing_lost "upgrade"
echo "    $(wc -l <"$work/refused") of 200 connections refused during the upgrade"
same "connections refused" 0 "$(wc -l <"$work/refused")"

step "downgrade under load"
drive 6
pid=$(main_pid)
apt /mnt/waystation.deb
restarted "$pid" || failed "the old version does not run"
arrive
nothing_lost "downgrade"

step "reboot under load"
# As a unit: what was entered into the container from outside would be stopped, and nothing would reap it.
host_exec systemd-run --quiet --unit vehicles "${vehicles[@]}" --duration 60s
sleep 3
host_reboot
within 30 "the service after a reboot" is_active
drive 3
arrive
nothing_lost "reboot"

step "removed, and its data kept; installed again, and running again"
host_exec apt-get remove --yes --quiet --quiet waystation >/dev/null
host_exec test ! -e /usr/bin/waystation || failed "the program is still there"
host_exec test -d /var/lib/waystation/queue || failed "the queue is gone"
host_exec test -e /etc/waystation/config.toml || failed "the configuration is gone"
apt /mnt/waystation.deb
same "installed again" enabled "$(host_exec systemctl is-enabled waystation)"
host_exec systemctl start waystation
drive 3
arrive
nothing_lost "removed and installed again"

step "journald that reads nothing, under load"
pid=$(main_pid)
host_exec systemctl kill --signal=STOP --kill-whom=main systemd-journald
# Until it would have to wait.
full=0
while printf 'MESSAGE=one more\n' | host_exec timeout 1 socat -u - UNIX-SENDTO:/run/systemd/journal/socket; do
    full=$((full + 1)) && [ "$full" -lt 5000 ] || failed "5,000 messages fit into the journal's socket"
done
drive 4
arrive
nothing_lost "no journal"
same "the process" "$pid" "$(main_pid)"
host_exec systemctl kill --signal=CONT --kill-whom=main systemd-journald
told() { host_exec journalctl --unit waystation --output cat --since -1min --grep 'vehicle connected' --quiet --no-pager; }
within 20 "what was logged meanwhile" told

step "the journal, as JSON"
host_exec journalctl --unit waystation --output json --no-pager >"$work/journal"
python3 - "$work/journal" <<'END'
import collections, json, sys

seen = collections.Counter()
for line in open(sys.argv[1]):
    entry = json.loads(line)
    if entry.get("SYSLOG_IDENTIFIER") == "waystation" or entry.get("_COMM") == "waystation":
        seen["entries"] += 1
        seen["with VIN"] += "VIN" in entry
        seen["ready"] += entry["MESSAGE"] == "waystation is ready"
        if int(entry["PRIORITY"]) <= 3:
            seen["error: " + entry["MESSAGE"]] += 1
print("    " + ", ".join(f"{name}: {count}" for name, count in seen.items()))
sys.exit(not (seen["with VIN"] and seen["ready"] >= 5))
END

step "purged: nothing is left"
host_exec apt-get purge --yes --quiet --quiet waystation >/dev/null
for path in /var/lib/waystation /etc/waystation /run/waystation /usr/lib/systemd/system/waystation.service.d; do
    host_exec test ! -e "$path" || failed "after the purge there is still $path"
done
host_exec rm -rf /etc/systemd/system/waystation.service.d
same "links that lead nowhere" '' "$(host_exec find /etc/systemd /var/lib/systemd -name 'waystation*')"
same "units that failed" '' "$(host_exec systemctl list-units --state=failed --plain --no-legend 'waystation*')"

echo "systemd-test.sh: all $steps steps hold on $suite, systemd $systemd: $((SECONDS - built)) s, and $((built - started)) s for packages and root file system"
