#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# dist.sh - "make dist": what is committed, with the sources of all crates, as
# target/dist/postgrey-VERSION.tar.xz. It builds without a network. Beside it is
# postgrey-VERSION.cdx.json, which lists the crates and their licences (an SBOM, by
# cargo-cyclonedx, if that is there). The same commit gives the same files. For GNU
# tar, and git.
set -eu

version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | sed 1q)
name=postgrey-$version
out=${CARGO_TARGET_DIR:-target}/dist
time=$(git log -1 --format=%ct)

if [ -n "$(git status --porcelain)" ]; then
        echo "dist: what is not committed is left out" >&2
fi
rm -rf "$out"
mkdir -p "$out/$name/.cargo"
git archive HEAD | tar -x -C "$out/$name" -f -
(
        cd "$out/$name"
        cargo vendor --quiet --locked --versioned-dirs vendor
        printf '[source.crates-io]\nreplace-with = "vendored"\n\n' >.cargo/config.toml
        printf '[source.vendored]\ndirectory = "vendor"\n' >>.cargo/config.toml
)
tar -C "$out" --sort=name --format=ustar --mtime="@$time" --owner=0 --group=0 \
        --numeric-owner --mode=u=rwX,go=rX -cf "$out/$name.tar" "$name"
xz -T 1 -6 "$out/$name.tar"
if cargo cyclonedx --version >/dev/null 2>&1; then
        (
                cd "$out/$name"
                SOURCE_DATE_EPOCH=$time cargo cyclonedx --quiet --format json \
                        --spec-version 1.5 --target all --override-filename sbom.cdx
                # Without the name of this directory.
                sed "s|path+file://[^#]*#||" sbom.cdx.json >"../$name.cdx.json"
                rm sbom.cdx.json
        )
else
        echo "dist: no list of crates: cargo install --locked cargo-cyclonedx" >&2
fi
{
        echo "TIMESTAMP = $time"
        echo "SHA256 ($name.tar.xz) = $(sha256sum "$out/$name.tar.xz" | sed 's/ .*//')"
        echo "SIZE ($name.tar.xz) = $(wc -c <"$out/$name.tar.xz" | tr -d ' ')"
} >"$out/distinfo"
cat "$out/distinfo"
