#!/usr/bin/env bash
# Brings what a build for armhf (ARMv7 with hardware floating point) is linked to: Debian's libraries and headers of that
# architecture and, when this compiler is Debian's own and has none, Rust's standard library.
#
#   scripts/armhf-sysroot.sh
#
# Unlike for arm64, dpkg and apt of this machine hear nothing of the architecture: its index in Debian 12's security archive
# is not always the one that is signed there, and then every later `apt-get update` fails. The packages are fetched with a
# state of apt's that is kept in target/armhf, and unpacked there. Prints two lines: the folder that stands for `/`, and one
# of programs that belongs in front of PATH.
set -euo pipefail
cd "$(dirname "$0")/.."
TUPLE=arm-linux-gnueabihf TARGET=armv7-unknown-linux-gnueabihf
# Where a standard library is looked for when this release has none for its own compiler, which can come from its security
# archive: the next release's, which is the same source.
ALSO=trixie
failed() { echo "armhf-sysroot.sh: $*" >&2 && exit 1; }

release=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
rust=$(rustc --version) compiler=$(command -v rustc) compiler_root=$(rustc --print sysroot)
# By rustup, if that can have it.
if [ ! -d "$compiler_root/lib/rustlib/$TARGET/lib" ] && command -v rustup >/dev/null; then
    rustup target add "$TARGET" >&2 || true
fi
own_std=no
[ -d "$compiler_root/lib/rustlib/$TARGET/lib" ] || own_std=yes

to=$PWD/target/armhf
made_for="$release, $rust, $compiler_root, $own_std"
if [ "$(cat "$to/made-for" 2>/dev/null)" = "$made_for" ]; then
    printf '%s\n' "$to/root" "$to/bin"
    exit
fi
rm -rf "$to"
mkdir -p "$to"/{apt/lists/partial,apt/cache/archives/partial,debs,root/DEBIAN,bin}

# shellcheck disable=SC2016 # apt puts the value in
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' "Codename: $release" 'Origin: Debian' | sed -n 1p)
[ -n "$mirror" ] || failed "apt knows no Debian archive of \"$release\"; this needs a Debian"
suites=("$release")
[ "$own_std" = no ] || [ "$release" = "$ALSO" ] || suites+=("$ALSO")
for suite in "${suites[@]}"; do
    echo "deb [arch=armhf target=Packages signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main"
done >"$to/apt/sources.list"
touch "$to/apt/status"
state=(-o "Dir::State=$to/apt" -o "Dir::State::status=$to/apt/status" -o "Dir::Cache=$to/apt/cache"
    -o "Dir::Etc::sourcelist=$to/apt/sources.list" -o Dir::Etc::sourceparts=/dev/null
    -o APT::Architecture=armhf -o APT::Architectures=armhf -o Acquire::Languages=none
    -o "APT::Default-Release=$release" -o "APT::Sandbox::User=$(id -un)")
apt-get "${state[@]}" -qq update >&2 || failed "apt cannot read Debian's armhf archive of ${suites[*]}; what it said is above"
fetch() { (cd "$to/debs" && apt-get "${state[@]}" -qq download "$@" >&2) || failed "apt cannot fetch $*"; }

# OpenSSL's library has another name in each release.
ssl=$(apt-cache "${state[@]}" depends libssl-dev | sed -n 's/^ *Depends: \(libssl[0-9].*\)/\1/p')
fetch libc6 libgcc-s1 zlib1g zlib1g-dev "$ssl" libssl-dev
for deb in "$to"/debs/*.deb; do
    dpkg-deb --extract "$deb" "$to/root"
    # For dpkg-shlibdeps: which package, and since which version, has a symbol.
    dpkg-deb --info "$deb" symbols >>"$to/root/DEBIAN/symbols" 2>/dev/null || true
done
# The headers of one architecture lie beside the others, and no link leads out of the folder.
cp -r "$to/root/usr/include/$TUPLE/." "$to/root/usr/include/"
find "$to/root" -type l -lname '/*' -printf '%p %l\n' | while read -r link target; do
    ln -sfnr "$to/root$target" "$link"
done

# The C compilers find them without being told, as they would if they were installed.
for one in gcc g++; do
    cat >"$to/bin/$TUPLE-$one" <<END
#!/bin/sh
exec $(command -v "$TUPLE-$one") -idirafter "$to/root/usr/include" "-L$to/root/usr/lib/$TUPLE" "\$@"
END
done
# cargo-deb asks dpkg-shlibdeps as well as scripts/build-deb.sh does, and neither can be told of a folder.
cat >"$to/bin/dpkg-shlibdeps" <<END
#!/bin/sh
DEB_HOST_ARCH=armhf exec $(command -v dpkg-shlibdeps) "-S$to/root" "\$@"
END
chmod +x "$to"/bin/*

if [ "$own_std" = yes ]; then
    upstream=$(rustc -vV | sed -n 's/^release: //p')
    known=$(apt-cache "${state[@]}" madison libstd-rust-web-dev libstd-rust-dev | tr -d ' ' | cut -d '|' -f 1,2)
    found=$(grep -m 1 -E "\|${upstream}[+-]" <<<"$known" | tr '|' '=') ||
        failed "$rust has no standard library for $TARGET, and Debian's ${suites[*]} have none of this version:"$'\n'"$known"
    rm "$to"/debs/*.deb
    fetch "$found"
    mkdir -p "$to/rust/lib/rustlib"
    dpkg-deb --extract "$to"/debs/*.deb "$to/std"
    mv "$to/std/usr/lib/rustlib/$TARGET" "$to/rust/lib/rustlib/"
    for one in "$compiler_root"/lib/rustlib/*; do
        ln -s "$one" "$to/rust/lib/rustlib/"
    done
    printf '#!/bin/sh\nexec %s --sysroot %s "$@"\n' "$compiler" "$to/rust" >"$to/bin/rustc"
    chmod +x "$to/bin/rustc"
fi

# A compiler takes only what the very same compiler made.
PATH=$to/bin:$PATH
echo 'fn main() { std::thread::spawn(|| println!("it works")).join().unwrap() }' |
    rustc --target "$TARGET" -C "linker=$TUPLE-gcc" --crate-name try -o "$to/try" - ||
    failed "$rust cannot use the standard library for $TARGET${found:+ of $found}; why is above"
said=$(timeout 60 qemu-arm-static -L "$to/root" "$to/try") || failed "a small program does not run under qemu-arm-static"
[ "$said" = "it works" ] || failed "a small program does not run under qemu-arm-static; it printed \"$said\""

rm -rf "$to/apt" "$to/debs" "$to/std" "$to/try"
echo "$made_for" >"$to/made-for"
printf '%s\n' "$to/root" "$to/bin"
