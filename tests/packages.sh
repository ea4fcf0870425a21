#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# packages.sh - on Debian, as root: install the packages that have the programs
# the tests can use. What cannot be had is said, and its tests are skipped.

PACKAGES='postfix postfix-pcre postgrey db-util lmdb-utils mandoc groff shellcheck
devscripts ksh93u+m bmake libxml2-utils systemd faketime man-db procps perl
iproute2 redis-server openssl logwatch
tmux xz-utils chromium fonts-dejavu-core default-jre-headless prometheus'

if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
        echo "check: not root on Debian: nothing is installed" >&2
        exit 0
fi
# The validator of pages is no package of Debian.
vnu=${CARGO_TARGET_DIR:-target}/vnu
if command -v npm >/dev/null && [ ! -d "$vnu/node_modules/vnu-jar" ]; then
        mkdir -p "$vnu"
        npm install --silent --no-save --prefix "$vnu" vnu-jar@26.9.27 >/dev/null 2>&1 </dev/null ||
                echo "check: vnu-jar could not be installed" >&2
fi
missing=
for package in $PACKAGES; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null |
                grep '^install ok installed' >/dev/null ||
                missing="$missing $package"
done
[ -n "$missing" ] || exit 0

# Servers among the packages are not to be started.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
        trap 'rm -f "$policy"' EXIT
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
fi
# shellcheck disable=SC2086
{
        apt-get -o DPkg::Lock::Timeout=300 -qq update &&
                DEBIAN_FRONTEND=noninteractive apt-get \
                        -o DPkg::Lock::Timeout=300 -qq -y \
                        --no-install-recommends install $missing
} >/dev/null </dev/null ||
        echo "check: not all of$missing could be installed" >&2
exit 0
