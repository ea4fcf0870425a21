#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# root.sh DIR - for Containerfile: builds the programs, and puts into DIR what
# the image has: them, what they load, their configuration and their user.
set -eu

root=$1
places='PREFIX=/usr SYSCONFDIR=/etc/postgrey DBDIR=/var/lib/postgrey'

# shellcheck disable=SC2086
make $places
# shellcheck disable=SC2086
make install $places DESTDIR="$root" CARGO=no-cargo >/dev/null
programs="$root/usr/sbin/postgrey $root/usr/sbin/postgreyctl $root/usr/bin/postgreyreport"
# shellcheck disable=SC2086
strip $programs
rm -rf "${root:?}/usr/share"

for program in $programs; do
        ldd "$program"
done | sed -n 's|^[^/]*\(/[^ ]*\) (0x.*|\1|p' | sort -u | while IFS= read -r file; do
        mkdir -p "$root${file%/*}"
        cp -L "$file" "$root$file"
done

# Whom the system trusts, for TLS (--store=rediss://...).
certificates=/etc/ssl/certs/ca-certificates.crt
if [ -f "$certificates" ]; then
        mkdir -p "$root/etc/ssl/certs"
        cp -L "$certificates" "$root$certificates"
fi

mkdir -p "$root/var/lib/postgrey" "$root/run/postgrey"
chmod 700 "$root/var/lib/postgrey"
chown 10023:10023 "$root/var/lib/postgrey" "$root/run/postgrey"
echo 'postgrey:x:10023:10023:postgrey:/var/lib/postgrey:/bin/false' >"$root/etc/passwd"
echo 'postgrey:x:10023:' >"$root/etc/group"
