#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# systems-check.sh - type-check everything for Solaris, illumos, FreeBSD and
# NetBSD, on Debian.
#
# No toolchain with a ready-made std for all of these can be had, but Debian
# has the sources of std beside a compiler of the same version (rustc-web,
# rust-web-src), so cargo builds std as well. Nothing is linked: C code is
# compiled for this machine, and not checked.
#
# Without these packages it says "skipped" and ends with 0.
set -eu

TARGETS='x86_64-pc-solaris x86_64-unknown-illumos x86_64-unknown-freebsd
x86_64-unknown-netbsd'
RUSTC=/usr/bin/rustc
STD=/usr/lib/rustlib/src/rust/library/Cargo.lock

is_there() {
        [ -x "$RUSTC" ] && [ -f "$STD" ] && command -v gcc >/dev/null
}

if ! is_there && [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
        {
                apt-get -o DPkg::Lock::Timeout=300 -qq update &&
                        DEBIAN_FRONTEND=noninteractive apt-get \
                                -o DPkg::Lock::Timeout=300 -qq -y \
                                --no-install-recommends install \
                                rustc-web rust-web-src gcc
        } >/dev/null </dev/null || :
fi
if ! is_there; then
        echo "skipped: check-systems: no rustc-web and rust-web-src on this machine"
        exit 0
fi

unset RUSTC_WRAPPER RUSTC_WORKSPACE_WRAPPER
set --
for target in $TARGETS; do
        set -- "$@" --target "$target"
        name=$(echo "$target" | tr - _)
        export "CC_$name=gcc" "AR_$name=ar"
done

# Runs cargo check in a directory of its own, which keeps std for the next run.
# std is compiled, not only checked: without debug information it is smaller.
check() {
        RUSTC=$RUSTC RUSTC_BOOTSTRAP=1 CARGO_INCREMENTAL=0 \
                CARGO_PROFILE_DEV_DEBUG=0 \
                CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/systems" \
                cargo check -Zbuild-std=std,panic_abort,test "$@" </dev/null
}

check --all-targets --locked "$@"

# A check that cannot fail is worth nothing: what only Linux has must not pass.
trap 'rm -rf "$probe"' EXIT
probe=$(mktemp -d)
mkdir "$probe/src"
printf '[package]\nname = "probe"\nversion = "0.0.0"\nedition = "2024"\n[workspace]\n' \
        >"$probe/Cargo.toml"
echo 'fn main() { let _ = std::os::linux::fs::MetadataExt::st_uid; }' \
        >"$probe/src/main.rs"
if check --quiet --manifest-path "$probe/Cargo.toml" "$@" 2>"$probe/said"; then
        echo "check-systems: FAILED: an API of Linux was accepted" >&2
        exit 1
fi
if ! grep 'E0433' "$probe/said" >/dev/null; then
        cat "$probe/said" >&2
        exit 1
fi
# shellcheck disable=SC2086
echo check-systems: ok: $TARGETS
