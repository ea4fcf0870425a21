#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# dist.sh - "make check-dist": the types on other systems, the tarball of a
# release, and what is made from it without a network: the image of a container
# and the package for Fedora. On Debian, as root, it installs the packages that
# it uses; takes about 20 minutes. What cannot be tested says "skipped".
set -eu

out=${CARGO_TARGET_DIR:-target}/dist
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | sed 1q)

if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
        {
                apt-get -o DPkg::Lock::Timeout=300 -qq update &&
                        DEBIAN_FRONTEND=noninteractive apt-get \
                                -o DPkg::Lock::Timeout=300 -qq -y \
                                --no-install-recommends install \
                                buildah debootstrap rpm rpmlint xz-utils
        } >/dev/null </dev/null || :
fi

result=0
sh tests/systems-check.sh || result=1
sh dist/dist.sh || exit 1
sh tests/release.sh || result=1
bash tests/container.sh "$out/postgrey-$version" || result=1
bash tests/rpm.sh "$out/postgrey-$version.tar.xz" || result=1
if [ "$result" = 0 ]; then
        echo "check-dist: all is well"
else
        echo "check-dist: FAILED"
fi
exit "$result"
