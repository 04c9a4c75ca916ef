#!/usr/bin/env bash
# Builds the arm64 package on an amd64 Debian without containers, and runs what is in it under emulation: vehicles, an
# outage, a drain and the account of every record.
#
#   scripts/build-arm64.sh [arm64|armhf]
#
# The first time it adds the architecture to dpkg and installs its compiler and libraries, as root or with sudo. The last
# line printed is the package's path; exit code 0 says that it ran and lost nothing.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
case ${1:-arm64} in
arm64) arch=arm64 target=aarch64-unknown-linux-gnu tuple=aarch64-linux-gnu emulator=qemu-aarch64-static ;;
armhf) arch=armhf target=armv7-unknown-linux-gnueabihf tuple=arm-linux-gnueabihf emulator=qemu-arm-static ;;
*) echo "build-arm64.sh: $1 is no architecture; there are arm64 and armhf" >&2 && exit 2 ;;
esac
need_cargo
if ! dpkg --print-foreign-architectures | grep -qx "$arch"; then
    add=(dpkg --add-architecture "$arch")
    [ "$(id -u)" -eq 0 ] || add=(sudo -n "${add[@]}")
    "${add[@]}" || { echo "build-arm64.sh: dpkg knows no $arch; run: sudo dpkg --add-architecture $arch" >&2 && exit 1; }
    dpkg-query --show "libssl-dev:$arch" >/dev/null 2>&1 || missing_index=yes
    [ -z "${missing_index:-}" ] || [ "$(id -u)" -ne 0 ] || apt-get update -qq
fi
need "gcc-$tuple" "g++-$tuple" "libc6-dev-$arch-cross" "libssl-dev:$arch" "zlib1g-dev:$arch" qemu-user-static cmake pkg-config
# The standard library of the target, for this compiler.
if [ ! -d "$(rustc --print sysroot)/lib/rustlib/$target/lib" ]; then
    rustup target add "$target" || {
        echo "build-arm64.sh: rustc has no standard library for $target; run: rustup target add $target" >&2
        exit 1
    }
fi

upper=$(tr 'a-z-' 'A-Z_' <<<"$target") lower=${target//-/_}
export "CARGO_TARGET_${upper}_LINKER=$tuple-gcc" "CC_$lower=$tuple-gcc" "CXX_$lower=$tuple-g++" "AR_$lower=$tuple-ar"
export PKG_CONFIG_ALLOW_CROSS=1 "PKG_CONFIG_PATH=/usr/lib/$tuple/pkgconfig"
export "${upper}_OPENSSL_LIB_DIR=/usr/lib/$tuple" "${upper}_OPENSSL_INCLUDE_DIR=/usr/include"
deb=$(scripts/build-deb.sh --target "$target" | tail -n 1)

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
dpkg-deb --extract "$deb" "$work"
# The libraries are this system's own of that architecture.
run=(timeout 300 "$emulator" -L / "$work/usr/bin/waystation")
echo "under emulation: $("${run[@]}" --version), $(dpkg-deb --field "$deb" Architecture)" >&2
"${run[@]}" demo --for 20s --outage 8s >&2
echo "$deb"
