#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# build.sh - "make deb": builds the Debian package with cargo-deb.
#
# The places are those of Debian's own package, the options those it starts
# with: greylisting on port 10023, no tarpit. Everything is installed below
# var/deb first, as on any system, and packed from there as Cargo.toml says. The
# unit is the package's own.
set -e

root=var/deb
places="PREFIX=/usr SYSCONFDIR=/etc/postgrey DBDIR=/var/lib/postgrey
WHITELIST_CLIENTS=/etc/postgrey/whitelist_clients
WHITELIST_RECIPIENTS=/etc/postgrey/whitelist_recipients
CLIENT_TABLE=/etc/postgrey/postfix_client_access
RECIPIENT_TABLE=/etc/postgrey/postfix_recipient_access
ZSHCOMPDIR=/usr/share/zsh/vendor-completions"

if ! cargo deb --version >/dev/null 2>&1; then
        echo "cargo-deb is missing: cargo install --locked cargo-deb" >&2
        exit 1
fi
rm -rf "$root"
# shellcheck disable=SC2086
make install install-rc DESTDIR="$root" $places >/dev/null

# The options in two files: of the script on two lines, elsewhere on one.
for file in etc/init.d/postgrey etc/default/postgrey; do
        sed -e 's|--dbdir=/var/lib/postgrey --inet=127.0.0.1:60000 \\$|--inet=10023"|' \
                -e '/^--tarpit=125 .*--max-age=7 --log-tarpit"$/d' \
                -e 's|--dbdir=/var/lib/postgrey --inet=127.0.0.1:60000 --tarpit.*--max-age=7 --log-tarpit|--inet=10023|' \
                "$root/$file" >"$root/new"
        if grep 60000 "$root/new"; then
                echo "$file still has the usual options" >&2
                exit 1
        fi
        cat "$root/new" >"$root/$file"
done
# What the texts show is where the package listens.
for file in "$root"/usr/share/doc/postgrey/* "$root"/usr/share/man/man8/* \
        "$root"/usr/share/man/ja/man8/*; do
        sed -e 's|inet:127\.0\.0\.1:60000|inet:127.0.0.1:10023|g' \
                -e 's|inet=127\.0\.0\.1:60000|inet=127.0.0.1:10023|g' "$file" >"$root/new"
        cat "$root/new" >"$file"
done
rm "$root/new"

mkdir -p "$root/usr/share/postgrey"
mv "$root/etc/default/postgrey" "$root/usr/share/postgrey/default"
mv "$root/etc/postgrey/whitelist_clients" \
        "$root/etc/postgrey/whitelist_recipients" "$root/usr/share/postgrey"
gzip -9 -n -c deb/NEWS.Debian >"$root/usr/share/doc/postgrey/NEWS.Debian.gz"
# They are beside it already.
rm "$root/usr/share/doc/postgrey/postgrey_whitelist_clients" \
        "$root/usr/share/doc/postgrey/postgrey_whitelist_recipients" \
        "$root/usr/share/doc/postgrey/permit_client_nots25r" \
        "$root/usr/share/doc/postgrey/postgrey_pools" \
        "$root/usr/share/doc/postgrey/whitelist_client" \
        "$root/usr/share/doc/postgrey/whitelist_recipient" \
        "$root/usr/share/doc/postgrey/COPYING"

# The programs are built: with the places above, not with the usual ones.
cargo deb --no-build --no-strip --locked
