#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# release.sh - on what "make dist" has made: the licences of all crates by
# cargo-deny, its list of crates, and that tarball and programs do not depend on
# where they were made. Two builds, without a network if it may have one of its own.
set -eu

out=$(realpath "${CARGO_TARGET_DIR:-target}/dist")
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | sed 1q)
name=postgrey-$version
top=$(mktemp -d)
trap 'rm -rf "$top"' EXIT
log=$top/log

# shellcheck source=tests/checks.sh
. tests/checks.sh

# What has become known about a crate needs a network, and changes: not here.
if cargo deny --version >/dev/null 2>&1; then
        check "licences and origins of all crates are allowed" \
                cargo deny --locked check bans licenses sources
        sed '/^    "ISC",$/d' deny.toml >"$top/deny.toml"
        refused() {
                cargo deny --locked --config "$top/deny.toml" check licenses 2>&1 |
                        grep 'rejected'
        }
        check "and one that is not is refused" refused
else
        echo "skipped: licences: no cargo-deny (cargo install --locked cargo-deny)"
fi

sbom=$out/$name.cdx.json
crates() {
        cargo tree --locked --prefix none --edges normal,build --target all \
                --format '{p}' | sed 's/ (.*//; s/ v/ /' | LC_ALL=C sort -u
}
# It may have more: what would be built with other features of a crate.
names_all_crates() {
        crates >"$top/crates"
        python3 -c '
import json, sys
sbom = json.load(open(sys.argv[1]))
listed = [sbom["metadata"]["component"]] + sbom["components"]
print("\n".join(sorted({c["name"] + " " + c["version"] for c in listed})))
nameless = [c["name"] for c in listed if not c.get("licenses")]
assert not nameless, nameless' "$sbom" >"$top/listed" &&
                LC_ALL=C comm -23 "$top/crates" "$top/listed" >"$top/missing" &&
                cat "$top/missing" && test ! -s "$top/missing"
}
names_no_place() {
        ! grep -e 'file:///' -e "$PWD" "$sbom"
}
if [ -f "$sbom" ]; then
        check "the list of crates has them all, with their licences" names_all_crates
        check "and no place of this machine" names_no_place
else
        echo "skipped: the list of crates: no cargo-cyclonedx" \
                "(cargo install --locked cargo-cyclonedx)"
fi

same_elsewhere() {
        git clone --quiet . "$top/a checkout elsewhere" &&
                (cd "$top/a checkout elsewhere" && CARGO_TARGET_DIR=made sh dist/dist.sh) &&
                for file in "$out/$name".*; do
                        cmp "$file" "$top/a checkout elsewhere/made/dist/${file##*/}" || return 1
                done
}
check "a checkout elsewhere gives the same tarball and list" same_elsewhere

alone=
if [ "$(id -u)" -eq 0 ] && command -v unshare >/dev/null; then
        alone='unshare --net'
fi
# shellcheck disable=SC2086
builds() {
        mkdir -p "$1" && tar -xJf "$out/$name.tar.xz" -C "$1" &&
                (cd "$1/$name" && env -u CARGO_TARGET_DIR -u RUSTC_WRAPPER $alone make)
}
check "it is built without a network" builds "$top/one"
check "and again in another directory" builds "$top/another/one/far/down"
for program in postgrey postgreyctl postgreyreport; do
        check "both give the same $program" \
                cmp "$top/one/$name/target/release/$program" \
                "$top/another/one/far/down/$name/target/release/$program"
done

summary release
