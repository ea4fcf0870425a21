#!/bin/bash
# shellcheck disable=SC2016 # dpkg-query has variables of its own
# SPDX-License-Identifier: GPL-2.0-or-later
#
# deb.sh PACKAGE - the package in the life of a Debian machine: over Debian's own
# postgrey with its configuration and records, then removed, purged, installed
# anew, and over Debian's own with a mistake in the settings and without db_dump.
# In a chroot made by debootstrap; takes minutes and needs root.
#
# The servers in it listen on a UNIX socket in /run, and are ended by the numbers
# in their pid file.
set -euo pipefail

package=$(realpath "${1:?usage: $0 PACKAGE.deb}")
mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
suite=${DEBIAN_SUITE:-bookworm}
socket=/var/run/postgrey.sock

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
# shellcheck source=tests/checks.sh
. tests/checks.sh

# The answer for a client of this name.
ask() {
    inside perl -MIO::Socket::UNIX -e '
        alarm 10;
        my $server = IO::Socket::UNIX->new($ARGV[0]) or die "$ARGV[0]: $!\n";
        print $server "request=smtpd_access_policy\nprotocol_state=RCPT\n",
            "client_address=192.0.2.77\nclient_name=$ARGV[1]\n",
            "sender=alice\@example.com\nrecipient=bob\@example.org\n\n";
        $server->flush;
        print scalar <$server>;' "$socket" "$1"
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
        ask nobody.example.net >/dev/null 2>&1 || return 0
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

fails() {
    ! "$@"
}

# What the last checks have printed.
said() {
    tail -n 20 "$log" >"$top/said"
    grep "$1" "$top/said"
}

# A command line of the unit with the settings in its environment, as systemd
# runs it, and with the capabilities that the unit leaves to root.
run_of_unit() {
    local file=$root/lib/systemd/system/postgrey.service line='' caps=''
    line=$(sed -n "s/^$1=-*\/bin\/sh -c '\(.*\)'\$/\1/p" "$file" | sed 's/\$\$/$/g')
    caps=$(sed -n 's/^CapabilityBoundingSet=//p' "$file" | sed 's/CAP_/+/g; s/ /,/g')
    inside sh -c "set -a; . /etc/default/postgrey; exec setpriv --no-new-privs \
        --bounding-set=-all,${caps,,} /bin/sh -c '$line'"
}

# The server as the unit starts and ends it: its pid file is in the settings.
unit() {
    local pid=
    sed -i 's|--delay|--pidfile=/run/postgrey.pid --delay|' "$root/etc/default/postgrey"
    run_of_unit ExecStart >>"$log" 2>&1 &
    check "the unit: it answers" answers mine.example.net "action=DUNNO"
    pid=$(cat "$root/run/postgrey.pid")
    check "the unit: it runs as postgrey" test "$(stat -c %u "/proc/$pid")" = "$(inside id -u postgrey)"
    check "the unit: it has no capability" grep -E '^CapEff:\s+0+$' "/proc/$pid/status"
    kill "$pid"
    wait
    check "the unit: its pid file is left" test -s "$root/run/postgrey.pid"
    run_of_unit ExecStopPost >>"$log" 2>&1
    check "the unit: and removed" is_gone /run/postgrey.pid
    cp "$top/default" "$root/etc/default/postgrey"
}

# What has the name of ours anywhere, but for the packages in /tmp, and what
# dpkg and its tools keep of all packages.
is_all_gone() {
    local found=
    found=$(find "$root" -xdev \( -path "$root/tmp" -o -path "$root/var/log" \
        -o -path "$root/var/cache" -o -path "$root/var/lib/apt" \
        -o -path "$root/proc" \) -prune -o -name '*postgrey*' -print)
    echo "$found"
    [ -z "$found" ] && fails grep postgrey "$root/var/lib/ucf/hashfile" "$root/var/lib/ucf/registry"
}

# Debian's own once more, with the settings of above.
install_old() {
    echo "$options" >"$root/etc/default/postgrey"
    inside apt-get -qq -y --no-install-recommends install postgrey >>"$log" 2>&1
    inside invoke-rc.d postgrey restart >>"$log" 2>&1 || :
    check "Debian's again" answers host.example.com "action=DEFER_IF_PERMIT"
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
options="POSTGREY_OPTS=\"--unix $socket --delay=7\""
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
check "it says that the records are taken over" \
    grep "records of version $before are taken over" "$top/upgrade.log"
check "and what is new" grep -a policy-test <(zcat "$root/usr/share/doc/postgrey/NEWS.Debian.gz")
check "the old rules of logcheck are replaced" \
    cmp "$root/etc/logcheck/ignore.d.server/postgrey" deb/logcheck/ignore.d.server
check "a record is there" grep -F '192.0.2.0/alice@example.com/bob@example.org' \
    <(inside postgreyctl export)
check "the old server is gone" is_dead "$old_pid"
check "the new one greylists" answers host.example.com "action=DEFER_IF_PERMIT"
check "the settings are kept" grep -Fx "$options" "$root/etc/default/postgrey"
check "the whitelist is kept" cmp "$top/whitelist_clients" "$root/etc/postgrey/whitelist_clients"
check "and counts" answers mine.example.net "action=DUNNO"
check "the old records are kept" test -s "$root/var/lib/postgrey/postgrey.db"
pid=$(cat "$root/run/postgrey.pid")
check "it runs as postgrey" test "$(stat -c %u "/proc/$pid")" = "$(inside id -u postgrey)"
check "the directory is closed" test "$(stat -c %a "$root/var/lib/postgrey")" = 700

sleep 7
check "an imported triplet passes" answers host.example.com "action=PREPEND X-Greylist"

check "status" inside invoke-rc.d postgrey status
check "reload" inside invoke-rc.d postgrey reload
check "restart" inside invoke-rc.d postgrey restart
check "it answers after that" answers mine.example.net "action=DUNNO"
check "the manual page is there" test -s "$root/usr/share/man/man8/postgrey.8.gz"
check "the one in Japanese is there" test -s "$root/usr/share/man/ja/man8/postgrey.8.gz"
check "the completions are there" test -s "$root/usr/share/bash-completion/completions/postgreyctl" -a \
    -s "$root/usr/share/zsh/vendor-completions/_postgreyctl"
check "its options check" inside postgrey --check --inet=127.0.0.1:0
cp "$root/etc/default/postgrey" "$top/default"
sed -i 's/--delay/--delya/' "$root/etc/default/postgrey"
pid=$(cat "$root/run/postgrey.pid")
check "a mistake in the settings: no restart" fails inside invoke-rc.d postgrey restart
check "nor by an upgrade, which succeeds" inside dpkg -i /tmp/new.deb
check "and says so" said "One that runs is left alone"
check "the server is the same" test "$(cat "$root/run/postgrey.pid")" = "$pid"
check "and answers" answers mine.example.net "action=DUNNO"
cp "$top/default" "$root/etc/default/postgrey"
check "stop" inside invoke-rc.d postgrey stop
check "it is silent" is_silent
check "its pid file is gone" is_gone /run/postgrey.pid
unit
sed -i 's|--delay|--stats-file=/var/lib/postgrey/stats --delay|' "$root/etc/default/postgrey"
check "start" inside invoke-rc.d postgrey start
check "it answers again" answers mine.example.net "action=DUNNO"

check "remove" inside apt-get -qq -y remove postgrey
check "removed, it is silent" is_silent
check "the programs are gone" is_gone /usr/sbin/postgrey /usr/sbin/postgreyctl /usr/bin/postgreyreport
check "the configuration is left" test -s "$root/etc/default/postgrey"
check "the records are left" test -s "$root/var/lib/postgrey/data.mdb"
for file in data.mdb.damaged data.mdb.copy data.mdb.journal data.mdb.old lock.mdb.new postgrey.options; do
    cp "$root/var/lib/postgrey/data.mdb" "$root/var/lib/postgrey/$file"
done
check "purge" inside apt-get -qq -y purge postgrey
check "nothing is left" is_gone /etc/default/postgrey /etc/postgrey /etc/init.d/postgrey \
    /var/lib/postgrey /lib/systemd/system/postgrey.service /usr/share/postgrey \
    /usr/share/bash-completion/completions/postgreyctl \
    /usr/share/zsh/vendor-completions/_postgreyctl \
    /etc/rc2.d/S01postgrey /etc/systemd/system/multi-user.target.wants/postgrey.service
check "nor anything of its name" is_all_gone
check "dpkg knows it no more" test -z "$(inside dpkg-query -W -f '${Status}' postgrey 2>/dev/null || :)"

echo "$options" >"$root/etc/default/postgrey"
check "a fresh install" inside dpkg -i /tmp/new.deb
check "starts and greylists" answers host.example.com "action=DEFER_IF_PERMIT"
check "is purged at once" inside dpkg --purge postgrey
check "and is silent" is_silent

# Over Debian's own, with a mistake in the settings: it goes on, and what the
# upgrade prints is what is left to do.
install_old
pid=$(cat "$root/run/postgrey.pid")
echo "${options/--delay/--delya}" >"$root/etc/default/postgrey"
check "an upgrade with a mistake in the settings" inside dpkg -i /tmp/new.deb
check "leaves the old server alone" fails is_dead "$pid"
check "which answers" answers host.example.com "action="
echo "$options" >"$root/etc/default/postgrey"
tail -n 5 "$log" | grep '^    ' | sed 's/^    service \(.*\) \(.*\)/invoke-rc.d \1 \2/' >"$root/tmp/next"
check "what is printed then" test "$(wc -l <"$root/tmp/next")" = 3
check "can be done" inside sh -e /tmp/next
sleep 7
check "and the records are there" answers host.example.com "action=PREPEND X-Greylist"
check "purge" inside apt-get -qq -y purge postgrey

# Without db_dump the records stay where they are, and it is said why.
install_old
inside apt-get -qq -y purge db-util db5.3-util >>"$log" 2>&1
inside dpkg -i /tmp/new.deb >"$top/upgrade.log" 2>&1 || failures=$((failures + 1))
cat "$top/upgrade.log" >>"$log"
check "without db_dump it says so" grep db_dump "$top/upgrade.log"
check "and how to import later" grep "postgreyctl import --from=postgrey-1.37" "$top/upgrade.log"
check "and serves" answers host.example.com "action=DEFER_IF_PERMIT"
check "purge" inside apt-get -qq -y purge postgrey
check "nothing is left again" is_all_gone

summary "deb (over $before, $suite)"
