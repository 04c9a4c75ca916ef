#!/usr/bin/env bash
# Builds the arm64 package, or the one for 32-bit ARMv7, on an amd64 Debian without containers, and runs what is in it
# under emulation: vehicles, an outage, a drain and the account of every record.
#
#   scripts/build-arm64.sh [arm64|armhf]
#
# The first time it installs the architecture's compiler and libraries, as root or with sudo: for arm64 it adds the
# architecture to dpkg, for armhf scripts/armhf-sysroot.sh brings the libraries without that. The last line printed is the
# package's path; exit code 0 says that it ran and lost nothing.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
arch=${1:-arm64}
case $arch in
arm64) target=aarch64-unknown-linux-gnu tuple=aarch64-linux-gnu emulator=qemu-aarch64-static ;;
armhf) target=armv7-unknown-linux-gnueabihf tuple=arm-linux-gnueabihf emulator=qemu-arm-static ;;
*) echo "build-arm64.sh: $arch is no architecture; there are arm64 and armhf" >&2 && exit 2 ;;
esac
need_cargo
upper=$(tr 'a-z-' 'A-Z_' <<<"$target") lower=${target//-/_}
cross=("gcc-$tuple" "g++-$tuple" "libc6-dev-$arch-cross" qemu-user-static cmake pkg-config)
if [ "$arch" = arm64 ]; then
    root=''
    if ! dpkg --print-foreign-architectures | grep -qx "$arch"; then
        add=(dpkg --add-architecture "$arch")
        [ "$(id -u)" -eq 0 ] || add=(sudo -n "${add[@]}")
        "${add[@]}" || { echo "build-arm64.sh: dpkg knows no $arch; run: sudo dpkg --add-architecture $arch" >&2 && exit 1; }
        dpkg-query --show "libssl-dev:$arch" >/dev/null 2>&1 || missing_index=yes
        [ -z "${missing_index:-}" ] || [ "$(id -u)" -ne 0 ] || apt-get update -qq
    fi
    need "${cross[@]}" "libssl-dev:$arch" "zlib1g-dev:$arch"
    # The standard library of the target, for this compiler.
    if [ ! -d "$(rustc --print sysroot)/lib/rustlib/$target/lib" ] && ! rustup target add "$target"; then
        echo "build-arm64.sh: rustc has no standard library for $target; run: rustup target add $target" >&2
        echo "  or, when the compiler is of Debian's rustc-web: sudo apt-get install libstd-rust-web-dev:$arch" >&2
        exit 1
    fi
else
    need "${cross[@]}"
    made=$(scripts/armhf-sysroot.sh)
    { read -r root && read -r bin; } <<<"$made"
    export PATH=$bin:$PATH
    # cmake, for librdkafka, looks there before /usr.
    export CMAKE_PREFIX_PATH=$root/usr "PKG_CONFIG_SYSROOT_DIR_$lower=$root"
fi

export "CARGO_TARGET_${upper}_LINKER=$tuple-gcc" "CC_$lower=$tuple-gcc" "CXX_$lower=$tuple-g++" "AR_$lower=$tuple-ar"
export PKG_CONFIG_ALLOW_CROSS=1 "PKG_CONFIG_PATH=$root/usr/lib/$tuple/pkgconfig"
export "${upper}_OPENSSL_LIB_DIR=$root/usr/lib/$tuple" "${upper}_OPENSSL_INCLUDE_DIR=$root/usr/include"
deb=$(scripts/build-deb.sh --target "$target" | tail -n 1)

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
dpkg-deb --extract "$deb" "$work"
# The libraries are those that it was linked to: for arm64 this system's own of that architecture.
run=(timeout 300 "$emulator" -L "${root:-/}" "$work/usr/bin/waystation")
echo "under emulation: $("${run[@]}" --version), $(dpkg-deb --field "$deb" Architecture)" >&2
"${run[@]}" demo --for 20s --outage 8s >&2
echo "$deb"
