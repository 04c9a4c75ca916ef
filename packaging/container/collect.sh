#!/usr/bin/env bash
# Puts a program, the libraries that it is linked to and the authorities of this system into a folder.
#
#   packaging/container/collect.sh PROGRAM FOLDER
set -euo pipefail
program=${1:?PROGRAM} image=${2:?FOLDER}
install -D -m 0755 "$program" "$image/usr/bin/waystation"
install -d -m 0700 "$image/var/lib/waystation"
install -d -m 1777 "$image/tmp"
# Libraries keep their places, the loader too; links are followed, so that a file is under the name that is looked for.
ldd "$program" | grep -o '/[^ ]*' | sort -u | while read -r library; do
    install -D -m 0755 "$library" "$image$library"
done
install -D -m 0644 /etc/ssl/certs/ca-certificates.crt "$image/etc/ssl/certs/ca-certificates.crt"
install -D -m 0644 /etc/ssl/openssl.cnf "$image/usr/lib/ssl/openssl.cnf"
install -d "$image/etc"
echo 'waystation:x:65532:65532::/var/lib/waystation:/' >"$image/etc/passwd"
echo 'waystation:x:65532:' >"$image/etc/group"
