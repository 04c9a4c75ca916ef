#!/usr/bin/env bash
# Cuts the power of a real file system under the queue and checks what the next start finds.
#
#   scripts/block-cuts.sh [ext4|xfs|btrfs] [CUTS] [SEED]     5000 cuts on ext4 unless said otherwise: about five minutes
#
# A queue is loaded on a file system of its own, through three kills and an orderly stop. The disk below it is a loop
# device over a file that QEMU exports with FUSE, so that every block write and flush is logged. Each cut is an image:
# everything up to a flush, and some of what was written after it; the kernel mounts it, the queue in it is opened.
#
# Exit code 0: nothing was lost. 1: something was; what is needed to see it again is kept, and the command said.
# 3: not run, because it needs root, /dev/fuse and loop devices.
set -euo pipefail
fs=${1:-ext4} cuts=${2:-5000} seed=${3:-1}
# The superblock's sectors are never torn: ext4 and btrfs do not mount with a torn one, whatever the queue does.
case $fs in
ext4) tools=e2fsprogs size=64M superblock=2-3 make=(mkfs.ext4 -q -F -b 4096 -E 'lazy_itable_init=0,lazy_journal_init=0') ;;
xfs) tools=xfsprogs size=300M superblock=0-0 make=(mkfs.xfs -q -f) ;;
btrfs) tools=btrfs-progs size=256M superblock=128-135 make=(mkfs.btrfs -q -f) ;;
*) echo "usage: scripts/block-cuts.sh [ext4|xfs|btrfs] [CUTS] [SEED]" >&2 && exit 2 ;;
esac
# To have a mount namespace needs what mounting needs; a container may have the devices and may not open them.
if [ "$(id -u)" -ne 0 ] || [ ! -c /dev/fuse ] || ! (: <>/dev/fuse) 2>/dev/null || ! losetup --find >/dev/null 2>&1 ||
    ! unshare --mount true 2>/dev/null; then
    echo "not run: needs root, /dev/fuse and loop devices" >&2
    exit 3
fi
# The mounts are its own, and go with it however it ends.
[ "${BLOCK_CUTS_MOUNTS:-}" = own ] || BLOCK_CUTS_MOUNTS=own exec unshare --mount "$0" "$@"
cd "$(dirname "$0")/.."
. scripts/lib.sh
# Which of the two QEMU packages has qemu-storage-daemon depends on the release.
need "${BUILD_PACKAGES[@]}" qemu-utils qemu-system-common mount "$tools"
need_cargo
cargo build --quiet --locked --example block-cuts
program=$(realpath "${CARGO_TARGET_DIR:-target}/debug/examples/block-cuts")

# In memory if there is room: a thousand images are written, and the disk that they are of is not this one.
parent=${TMPDIR:-/tmp}
[ "$(stat -f -c '%a * %S / 1048576' /dev/shm | xargs expr 2>/dev/null || echo 0)" -gt 1024 ] && parent=/dev/shm
dir=$(mktemp -d -p "$parent" block-cuts.XXXXXX)
storage=''
put_away() {
    mountpoint --quiet "$dir/cut" && umount --lazy "$dir/cut"
    mountpoint --quiet "$dir/mnt" && umount "$dir/mnt"
    [ -z "$storage" ] || { kill "$storage" && while kill -0 "$storage" 2>/dev/null; do sleep 0.05; done; }
    storage=''
} 2>/dev/null
trap 'put_away || true; rm -rf "$dir"' EXIT
trap 'exit 130' INT TERM

mkdir "$dir/mnt"
truncate -s "$size" "$dir/disk.img"
"${make[@]}" "$dir/disk.img"
cp --sparse=always "$dir/disk.img" "$dir/base.img"
# It does not grow: sparse, and more than is ever written.
truncate -s 4G "$dir/log.img"
touch "$dir/logged"
qemu-storage-daemon --daemonize --pidfile "$dir/pid" \
    --blockdev "driver=file,node-name=disk,filename=$dir/disk.img" \
    --blockdev "driver=file,node-name=log,filename=$dir/log.img" \
    --blockdev driver=blklogwrites,node-name=logged,file=disk,log=log \
    --export "type=fuse,id=logged,node-name=logged,mountpoint=$dir/logged,writable=on"
storage=$(cat "$dir/pid")
mount -o loop "$dir/logged" "$dir/mnt"

# Of a record of one life come fewer than two flushes to cut at.
records=$((cuts / 4 < 200 ? 200 : cuts / 4 > 1250 ? 1250 : cuts / 4))
load() {
    "$program" load "$dir/mnt/queue" --journal "$dir/journal" --log "$dir/log.img" --seed "$1" \
        --records "$records" "${@:2}" >"$dir/load.log" 2>&1
}
for life in 1 2 3; do
    # The shell says "Killed" of what is meant to be.
    code=0
    { load "$((seed * 10 + life))" --kill || code=$?; } 2>/dev/null
    [ "$code" -eq 137 ] || { cat "$dir/load.log" >&2 && exit 1; }
done
load "$((seed * 10))" || { cat "$dir/load.log" >&2 && exit 1; }
put_away
rm "$dir/disk.img"

cut=(--seed "$seed" --cuts "$cuts" --superblock "$superblock")
if "$program" replay "$dir" "${cut[@]}" 2>&1 >"$dir/result" | tee "$dir/replay.log" >&2; then
    echo "$fs: $(cat "$dir/result")"
    exit 0
fi
# When the kernel wrote what is nobody's choice, so the log is kept and not only the seed.
number=$(sed -n 's/^cut \([0-9]*\) of .*/\1/p' "$dir/replay.log" | tail -n 1)
kept=target/block-cuts/$fs-$seed
rm -rf "$kept"
mkdir -p "$kept"
cp --sparse=always "$dir"/{base.img,log.img,journal,replay.log} "$kept"
echo "$fs, seed $seed: FAILED as said above; its block log and its journal are kept; once more:" >&2
echo "  $program replay $kept ${cut[*]} ${number:+--only $number}" >&2
exit 1
