#!/bin/bash
# shellcheck disable=SC2016 # dpkg-query has variables of its own
# SPDX-License-Identifier: GPL-2.0-or-later
#
# deb.sh PACKAGE - the package in the life of a Debian machine: over Debian's own
# postgrey with its configuration and records, then removed, purged, and
# installed anew. In a chroot made by debootstrap; takes minutes and needs root.
#
# The chroot shares the network of this machine: the servers in it listen on a
# port of their own on 127.0.0.1, and are ended by the numbers in their pid file.
set -euo pipefail

package=$(realpath "${1:?usage: $0 PACKAGE.deb}")
mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
suite=${DEBIAN_SUITE:-bookworm}
port=$((20000 + RANDOM % 10000))
failures=0
checks=0

if [ "$(id -u)" -ne 0 ] || ! command -v debootstrap >/dev/null; then
    echo "skipped: tests/deb.sh: no debootstrap on this machine, or not root"
    exit 0
fi

top=$(mktemp -d)
root=$top/root
log=$top/log

clean_up() {
    local file=$root/run/postgrey.pid pid=
    if [ -s "$file" ]; then
        pid=$(cat "$file")
        kill "$pid" 2>/dev/null || :
        for _ in 1 2 3 4 5 6 7 8 9 10; do
            kill -0 "$pid" 2>/dev/null || break
            sleep 0.5
        done
    fi
    umount "$root/proc" 2>/dev/null || :
    if mountpoint -q "$root/proc"; then
        echo "deb: $root/proc is still mounted; left behind" >&2
    else
        rm -rf "$top"
    fi
}
trap clean_up EXIT

inside() {
    DEBIAN_FRONTEND=noninteractive LC_ALL=C chroot "$root" "$@" </dev/null
}

# check WHAT COMMAND...: counts, and goes on.
check() {
    local what=$1
    shift
    checks=$((checks + 1))
    if "$@" >>"$log" 2>&1; then
        echo "ok: $what"
    else
        failures=$((failures + 1))
        echo "FAILED: $what"
        tail -n 20 "$log" | sed 's/^/    /'
    fi
}

# The answer for a client of this name.
ask() {
    local line=
    exec 3<>"/dev/tcp/127.0.0.1/$port" || return 1
    printf '%s\n' request=smtpd_access_policy protocol_state=RCPT \
        client_address=192.0.2.77 "client_name=$1" sender=alice@example.com \
        recipient=bob@example.org '' >&3
    IFS= read -r -t 10 line <&3 || :
    exec 3>&-
    echo "$line"
}

answers() {
    local got=
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        got=$(ask "$1" 2>/dev/null) && [ -n "$got" ] && break
        sleep 0.5
    done
    echo "$1: $got"
    case $got in
    "$2"*) return 0 ;;
    *) return 1 ;;
    esac
}

is_silent() {
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || return 0
        sleep 0.5
    done
    return 1
}

# A process that nobody has asked about is as good as gone.
is_dead() {
    local stat
    stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 0
    echo "$stat"
    # The name, in brackets, may have blanks in it.
    case ${stat##*) } in
    Z*) return 0 ;;
    *) return 1 ;;
    esac
}

is_gone() {
    local path
    for path; do
        if [ -e "$root$path" ] || [ -L "$root$path" ]; then
            ls -la "$root$path"
            return 1
        fi
    done
}

debootstrap --variant=minbase --include=adduser,ucf,procps "$suite" "$root" "$mirror" \
    >"$top/debootstrap.log" 2>&1 || {
    tail "$top/debootstrap.log"
    exit 1
}
mount -t proc proc "$root/proc"
cp /etc/resolv.conf "$root/etc/resolv.conf"
cp "$package" "$root/tmp/new.deb"
# Without an init and without this nothing would be started.
printf '#!/bin/sh\nexit 0\n' >"$root/usr/sbin/policy-rc.d"
chmod 755 "$root/usr/sbin/policy-rc.d"

# Debian's own, with settings and a whitelist of the administrator.
options="POSTGREY_OPTS=\"--inet=127.0.0.1:$port --delay=7\""
echo "$options" >"$root/etc/default/postgrey"
inside apt-get -qq -y --no-install-recommends install postgrey db-util >>"$log" 2>&1
before=$(inside dpkg-query -W -f '${Version}' postgrey)
echo "mine.example.net" >>"$root/etc/postgrey/whitelist_clients"
inside invoke-rc.d postgrey restart >>"$log" 2>&1 || :
check "Debian's $before greylists" answers host.example.com "action=DEFER_IF_PERMIT"
old_pid=$(cat "$root/run/postgrey.pid")
cp "$root/etc/postgrey/whitelist_clients" "$top/whitelist_clients"

inside dpkg -i /tmp/new.deb >"$top/upgrade.log" 2>&1 ||
    { cat "$top/upgrade.log"; failures=$((failures + 1)); }
cat "$top/upgrade.log" >>"$log"
check "the version is ours" inside dpkg --compare-versions \
    "$(inside dpkg-query -W -f '${Version}' postgrey)" ge 2
check "it says how to import" grep "postgreyctl import --from=postgrey-1.37" "$top/upgrade.log"
check "the old server is gone" is_dead "$old_pid"
check "the new one greylists" answers host.example.com "action=DEFER_IF_PERMIT"
check "the settings are kept" grep -Fx "$options" "$root/etc/default/postgrey"
check "the whitelist is kept" cmp "$top/whitelist_clients" "$root/etc/postgrey/whitelist_clients"
check "and counts" answers mine.example.net "action=DUNNO"
check "the old records are kept" test -s "$root/var/lib/postgrey/postgrey.db"
pid=$(cat "$root/run/postgrey.pid")
check "it runs as postgrey" test "$(stat -c %u "/proc/$pid")" = "$(inside id -u postgrey)"
check "the directory is closed" test "$(stat -c %a "$root/var/lib/postgrey")" = 700

check "the old records are imported" inside postgreyctl import --from=postgrey-1.37 /var/lib/postgrey
sleep 7
check "an imported triplet passes" answers host.example.com "action=PREPEND X-Greylist"

check "status" inside invoke-rc.d postgrey status
check "reload" inside invoke-rc.d postgrey reload
check "restart" inside invoke-rc.d postgrey restart
check "it answers after that" answers mine.example.net "action=DUNNO"
check "the manual page is there" test -s "$root/usr/share/man/man8/postgrey.8.gz"
check "the completions are there" test -s "$root/usr/share/bash-completion/completions/postgreyctl" -a \
    -s "$root/usr/share/zsh/vendor-completions/_postgreyctl"
check "its options check" inside postgrey --check --inet=127.0.0.1:0
check "stop" inside invoke-rc.d postgrey stop
check "it is silent" is_silent
check "start" inside invoke-rc.d postgrey start
check "it answers again" answers mine.example.net "action=DUNNO"

check "remove" inside apt-get -qq -y remove postgrey
check "removed, it is silent" is_silent
check "the programs are gone" is_gone /usr/sbin/postgrey /usr/sbin/postgreyctl
check "the configuration is left" test -s "$root/etc/default/postgrey"
check "the records are left" test -s "$root/var/lib/postgrey/data.mdb"
check "purge" inside apt-get -qq -y purge postgrey
check "nothing is left" is_gone /etc/default/postgrey /etc/postgrey /etc/init.d/postgrey \
    /var/lib/postgrey /lib/systemd/system/postgrey.service /usr/share/postgrey \
    /usr/share/bash-completion/completions/postgreyctl \
    /usr/share/zsh/vendor-completions/_postgreyctl \
    /etc/rc2.d/S01postgrey /etc/systemd/system/multi-user.target.wants/postgrey.service
check "dpkg knows it no more" test -z "$(inside dpkg-query -W -f '${Status}' postgrey 2>/dev/null || :)"

echo "$options" >"$root/etc/default/postgrey"
check "a fresh install" inside dpkg -i /tmp/new.deb
check "starts and greylists" answers host.example.com "action=DEFER_IF_PERMIT"
check "is purged at once" inside dpkg --purge postgrey
check "and is silent" is_silent

echo "deb: $checks checks, $failures failed (over $before, $suite)"
[ "$failures" -eq 0 ]
