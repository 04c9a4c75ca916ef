#!/usr/bin/env bash
# Builds the Debian package and checks it; the last line printed is its path.
#
#   scripts/build-deb.sh [--profile release|dev] [--target TRIPLE] [--version VERSION] [--unchecked]
#
# The same commit gives the same bytes, in whatever folder it is built, by the same compilers and libraries. `--profile
# dev` packs what `cargo test` built, for trying the package out without a release build: it is not reproducible, larger,
# and not checked. --version gives the package another version than Cargo.toml's. --target needs that target's compiler
# and libraries; scripts/build-arm64.sh brings them. --unchecked packs a release however large it is, for who measures
# that.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
CARGO_DEB=3.8.0
profile=release target='' version='' checked=yes
while [ $# -gt 0 ]; do
    case $1 in
    --profile) profile=${2:?--profile: release or dev} && shift ;;
    --target) target=${2:?--target: a triple such as aarch64-unknown-linux-gnu} && shift ;;
    --version) version=${2:?--version: a Debian version such as 0.1.0+1} && shift ;;
    --unchecked) checked=no ;;
    *) echo "build-deb.sh: $1 is no option; there are --profile, --target, --version and --unchecked" >&2 && exit 2 ;;
    esac
    shift
done
case $profile in
release | dev) ;;
*) echo "build-deb.sh: --profile $profile: write release or dev" >&2 && exit 2 ;;
esac
need "${BUILD_PACKAGES[@]}" dpkg-dev python3
need_cargo
root=$PWD
if [[ "$(target/tools/bin/cargo-deb --version 2>/dev/null)" != *"$CARGO_DEB" ]]; then
    echo "installing cargo-deb $CARGO_DEB into target/tools" >&2
    cargo install --quiet --locked --root target/tools "cargo-deb@$CARGO_DEB"
fi

# Every time in the package is the commit's.
epoch=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
build=(--locked --bin waystation --profile "$profile" ${target:+--target "$target"})
if [ "$profile" = release ]; then
    # No folder of this machine in the program. A target directory of its own, because other flags build all anew.
    # Nothing in the program depends on a time; one for good, because another would build the C libraries anew.
    export SOURCE_DATE_EPOCH=0
    cargo_home=${CARGO_HOME:-$HOME/.cargo}
    export CARGO_TARGET_DIR=$root/target/package
    export RUSTFLAGS="--remap-path-prefix=$root=/build/waystation --remap-path-prefix=$cargo_home=/build/cargo -Clink-arg=-Wl,-z,pack-relative-relocs"
    export CXXFLAGS="-ffile-prefix-map=$root=/build/waystation -ffile-prefix-map=$cargo_home=/build/cargo"
    # Beside them what .cargo/config.toml has, which an environment replaces.
    flags_of() { sed -n "s/^$1 = \"\(.*\)\"$/\1/p" .cargo/config.toml; }
    export CFLAGS="$CXXFLAGS $(flags_of CFLAGS)" AWS_LC_SYS_CFLAGS="$CXXFLAGS $(flags_of AWS_LC_SYS_CFLAGS)"
fi
cargo build "${build[@]}" >&2
mkdir -p target/packaging
host=$(rustc -vV | sed -n 's/^host: //p')
scripts/third-party-licenses.py "${target:-$host}" target/packaging/third-party-licenses.gz
gzip --best --no-name <packaging/changelog >target/packaging/changelog.gz

pack=(--no-strip)
[ "$profile" = release ] || pack=(--strip --fast)
deb=$(SOURCE_DATE_EPOCH=$epoch target/tools/bin/cargo-deb --locked --no-build "${pack[@]}" --profile "$profile" ${target:+--target "$target"} \
    ${version:+--deb-version "$version"} --output target/packaging/ | tail -n 1)
[ -f "$deb" ] || { echo "build-deb.sh: no package at \"$deb\"; what cargo-deb said is above" >&2 && exit 1; }
[ "$profile$checked" = releaseyes ] || { echo "$deb" && exit 0; }

failed() { echo "build-deb.sh: $deb: $*" >&2 && exit 1; }
size=$(stat -c %s "$deb") installed=$(dpkg-deb --field "$deb" Installed-Size)
[ "$size" -le 6000000 ] || failed "$size bytes; at most 6,000,000 are allowed"
[ "$installed" -le 15625 ] || failed "$installed KiB installed; at most 15,625 (16,000,000 bytes) are allowed"

# What is really linked, as Debian's own tool sees it, against what the package says.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
dpkg-deb --extract "$deb" "$work/tree"
mkdir "$work/debian"
printf 'Source: waystation\n\nPackage: waystation\nArchitecture: any\n' >"$work/debian/control"
linked=$(cd "$work" && dpkg-shlibdeps -O tree/usr/bin/waystation 2>"$work/log" | sed 's/^shlibs:Depends=//') ||
    { cat "$work/log" >&2 && failed "dpkg-shlibdeps failed"; }
depends=$(dpkg-deb --field "$deb" Depends)
# "NAME VERSION" for each. What one architecture needs from an earlier version on is covered by a later one.
listed() { sed 's/, */\n/g; s/[(>=)]//g' <<<"$1"; }
while read -r name version; do
    while read -r has from; do
        [ "$has" != "$name" ] || dpkg --compare-versions "${from:-0}" lt "${version:-0}" || continue 2
    done < <(listed "$depends")
    failed "is linked to $name${version:+ >= $version}, and Depends is \"$depends\""
done < <(listed "$linked")

need lintian
lintian --allow-root --fail-on error,warning --tag-display-limit 0 "$deb" >&2 || failed "lintian: see above"
echo "$size bytes, $installed KiB installed; Depends: $depends" >&2
echo "$deb"
