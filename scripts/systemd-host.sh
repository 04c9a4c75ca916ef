# A Debian with its systemd booted in a container, for scripts/systemd-test.sh. Its files are in $host_dir, and
# $host_dir/share is /mnt inside; its network is its own and has only loopback. What is changed inside goes with it.
# Sourced, not run.

host_dir=${host_dir:?}
# The cgroup that its processes are in.
host_cgroup=$(awk '$3 == "cgroup2" { print $2; exit }' /proc/mounts)
host_cgroup=${host_cgroup:+$host_cgroup/waystation-test-$$}

# host_possible : whether this machine lets one be booted; if not, the reason is printed.
host_possible() {
    [ "$(id -u)" -eq 0 ] || { echo "it needs root" && return 1; }
    unshare --mount --propagation private true 2>/dev/null || { echo "it needs mount namespaces" && return 1; }
    [ -n "$host_cgroup" ] || { echo "no cgroup2 file system is mounted" && return 1; }
    mkdir "$host_cgroup" 2>/dev/null || { echo "no cgroup can be made at $host_cgroup" && return 1; }
    rmdir "$host_cgroup"
    local try
    try=$(mktemp -d)
    # shellcheck disable=SC2016
    unshare --mount --propagation private sh -c '
        mount -t tmpfs tmpfs "$1" && mkdir "$1/l" "$1/u" "$1/w" "$1/m" &&
        mount -t overlay -o "lowerdir=$1/l,upperdir=$1/u,workdir=$1/w" overlay "$1/m"' _ "$try" 2>/dev/null ||
        { rmdir "$try" && echo "overlay file systems cannot be mounted" && return 1; }
    rmdir "$try"
}

# host_make SUITE PACKAGE... : the root file system, made once for the same packages.
host_make() {
    local suite=$1 made
    shift
    made="$suite $*"
    mkdir -p "$host_dir/share"
    [ "$(cat "$host_dir/made" 2>/dev/null)" != "$made" ] || return 0
    echo "making a root file system of $suite (about a minute)" >&2
    rm -rf "$host_dir/lower" "$host_dir/made"
    local packages="systemd,systemd-sysv,dbus,init-system-helpers,iproute2"
    for package in "$@"; do packages+=",$package"; done
    mmdebstrap --variant=minbase --quiet --include="$packages" "$suite" "$host_dir/rootfs.tar"
    mkdir "$host_dir/lower"
    tar --numeric-owner --xattrs --xattrs-include='*' -xpf "$host_dir/rootfs.tar" -C "$host_dir/lower"
    rm "$host_dir/rootfs.tar"
    mkdir -p "$host_dir/lower/var/log/journal"
    echo "$made" >"$host_dir/made"
}

host_leader() { sort -n "$host_cgroup/payload/init.scope/cgroup.procs" 2>/dev/null | head -n 1; }

# host_exec COMMAND... : runs it inside.
host_exec() {
    local leader
    leader=$(host_leader)
    [ -n "$leader" ] || { echo "the container does not run" >&2 && return 125; }
    nsenter --target "$leader" --mount --uts --ipc --net --pid --cgroup -- \
        env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 DEBIAN_FRONTEND=noninteractive \
        SYSTEMD_PAGER=cat SYSTEMD_COLORS=0 "$@"
}

host_wait() {
    local state
    for _ in $(seq 600); do
        kill -0 "$host_pid" 2>/dev/null || break
        state=$(host_exec systemctl is-system-running 2>/dev/null || true)
        case $state in running | degraded) return 0 ;; esac
        sleep 0.1
    done
    echo "the container did not boot (${state:-no state}):" >&2
    cat "$host_dir/boot.log" >&2
    return 1
}

host_up() {
    mkdir -p "$host_dir/scratch" "$host_cgroup"
    # shellcheck disable=SC2016
    unshare --mount --propagation private bash -c '
        set -euo pipefail
        dir=$1 cgroup=$2
        echo $$ >"$cgroup/cgroup.procs"
        mount -t tmpfs tmpfs "$dir/scratch"
        mkdir "$dir"/scratch/{upper,work,tree}
        mount -t overlay -o "lowerdir=$dir/lower,upperdir=$dir/scratch/upper,workdir=$dir/scratch/work" overlay "$dir/scratch/tree"
        echo depot >"$dir/scratch/tree/etc/hostname"
        printf "127.0.0.1 localhost\n::1 localhost\n" >"$dir/scratch/tree/etc/hosts"
        # Its state is not this machine'\''s, and it sees cgroup2 alone, where this machine mounts both kinds.
        mount -t tmpfs tmpfs /run
        umount -lR /sys/fs/cgroup
        mount -t cgroup2 cgroup2 /sys/fs/cgroup
        export SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1
        # 133: it asked for a reboot.
        code=133
        while [ "$code" -eq 133 ]; do
            code=0
            systemd-nspawn --quiet --directory="$dir/scratch/tree" --boot --register=no --keep-unit --private-network \
                --machine=depot --console=read-only --link-journal=no --bind="$dir/share:/mnt" || code=$?
        done
        exit "$code"
    ' _ "$host_dir" "$host_cgroup" >"$host_dir/boot.log" 2>&1 </dev/null &
    host_pid=$!
    host_wait
}

host_reboot() {
    local before now
    before=$(host_leader)
    host_exec systemctl reboot || true
    for _ in $(seq 600); do
        now=$(host_leader)
        [ -z "$now" ] || [ "$now" = "$before" ] || break
        sleep 0.1
    done
    host_wait
}

host_down() {
    [ -n "${host_pid:-}" ] || return 0
    local leader
    leader=$(host_leader)
    # SIGRTMIN+4 is "power off" to systemd.
    [ -z "$leader" ] || kill -RTMIN+4 "$leader" 2>/dev/null || true
    for _ in $(seq 100); do
        kill -0 "$host_pid" 2>/dev/null || break
        sleep 0.1
    done
    [ ! -e "$host_cgroup/cgroup.kill" ] || echo 1 >"$host_cgroup/cgroup.kill"
    wait "$host_pid" 2>/dev/null || true
    for _ in $(seq 50); do
        find "$host_cgroup" -depth -type d -exec rmdir {} + 2>/dev/null || true
        [ -e "$host_cgroup" ] || break
        sleep 0.1
    done
    host_pid=''
}
