#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# container.sh CONTEXT - Containerfile, built by buildah without a daemon and
# without a network, from CONTEXT (what make dist has unpacked), on a base made
# by debootstrap under the name that the file gives; and the life of the image:
# as pid 1, with a read-only root, as a user that nobody knows, without
# capabilities; asked, stopped, killed, and upgraded over its volume. As root, on
# amd64; takes minutes.
#
# The servers listen on 127.0.0.1, and are ended by their numbers.
set -euo pipefail

context=$(realpath "${1:?usage: $0 CONTEXT}")
here=$(realpath "$(dirname "$0")/..")
mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
security=${DEBIAN_SECURITY:-http://deb.debian.org/debian-security}
port=${POSTGREY_CONTAINER_PORT:-18023}
uid=54321

for program in buildah debootstrap unshare nsenter perl; do
    if [ "$(id -u)" -ne 0 ] || ! command -v "$program" >/dev/null; then
        echo "skipped: tests/container.sh: no $program on this machine, or not root"
        exit 0
    fi
done

top=$(mktemp -d)
volume=$top/volume
log=$top/log
pid=

storage() {
    buildah --root "$top/store" --runroot "$top/run" \
        --storage-driver "${POSTGREY_STORAGE:-overlay}" "$@"
}

end() {
    if [ -n "$pid" ]; then
        kill -9 "$pid" 2>/dev/null || :
    fi
}
clean_up() {
    end
    storage umount --all >/dev/null 2>&1 || :
    storage rm --all >/dev/null 2>&1 || :
    umount "$top/store/overlay" 2>/dev/null || :
    rm -rf --one-file-system "$top"
}
trap clean_up EXIT

# shellcheck source=tests/checks.sh
. "$here/tests/checks.sh"

# Milliseconds since 1970.
now() {
    date +%s%3N
}

# The base: Debian, with the compilers of its archive of security updates.
base=$(sed -n 's/^FROM \(.*\) AS build$/\1/p' "$here/Containerfile")
root=${POSTGREY_CONTAINER_BASE:-}
if [ -z "$root" ]; then
    root=$top/base
    debootstrap --variant=minbase --include=ca-certificates bookworm "$root" "$mirror" >>"$log"
    echo "deb $security bookworm-security main" >>"$root/etc/apt/sources.list"
    chroot "$root" sh -c 'apt-get -qq update && DEBIAN_FRONTEND=noninteractive \
        apt-get -qq -y --no-install-recommends install \
        rustc-web cargo-web gcc libc6-dev make && apt-get clean' >>"$log" 2>&1 </dev/null
fi
made=$(storage from scratch)
cp -a "$root/." "$(storage mount "$made")/"
storage umount "$made" >/dev/null
storage commit --quiet --rm "$made" "$base" >/dev/null

# No network: the crates are in the context.
start=$(now)
check "the image is built without a network" \
    unshare --net buildah --root "$top/store" --runroot "$top/run" \
    --storage-driver "${POSTGREY_STORAGE:-overlay}" build \
    --isolation chroot --format docker --pull-never \
    -f "$here/Containerfile" -t localhost/postgrey "$context"
[ "$failures" -eq 0 ] || exit 1
echo "container: built in $((($(now) - start) / 1000)) s"

inspect() {
    storage inspect --type image --format "{{$1}}" localhost/postgrey
}
check "the user is none but root" test "$(inspect .Docker.Config.User)" = 10023:10023
check "it stops by TERM" test "$(inspect .Docker.Config.StopSignal)" = SIGTERM
check "it has a health check" \
    test "$(inspect .Docker.Config.Healthcheck.Test)" = "[CMD /usr/sbin/postgreyctl ping]"
check "the database is a volume" \
    test "$(inspect .Docker.Config.Volumes)" = "map[/var/lib/postgrey:{}]"

# A container of its own for each version: $image, below which nothing changes.
fresh() {
    image=$(storage mount "$(storage from localhost/postgrey)")
    mkdir -p "$image/dev" "$image/proc"
}
fresh
has_nothing_else() {
    (cd "$image" && find . -type f -o -type l) | sort | tee "$top/files"
    # Programs, libraries, certificates, whitelists, and the user.
    ! grep -Ev '^\./(usr/sbin/postgrey(ctl)?|usr/bin/postgreyreport|(usr/)?lib(64)?/(x86_64-linux-gnu/)?(lib(c|m|gcc_s)\.so\.[0-9]|ld-linux-x86-64\.so\.2)|etc/ssl/certs/ca-certificates\.crt|etc/(passwd|group)|etc/postgrey/[a-z0-9_]+)$' "$top/files"
}
check "the image has nothing but the programs and what they load" has_nothing_else
echo "container: $(du -sk --apparent-size "$image" | cut -f 1) KiB in $(wc -l <"$top/files") files"

check "its user owns the directory of the database" \
    test "$(stat -c %u:%g:%a "$image/var/lib/postgrey")" = 10023:10023:700
check "and that of the socket" \
    test "$(stat -c %u:%g:%a "$image/run/postgrey")" = 10023:10023:755
check "nothing in the programs says where they were built" \
    test "$(grep -c -a /src/vendor "$image"/usr/*bin/postgrey* | grep -cv ':0$')" = 0
compose_is_right() {
    sed -n 's/^      - \(--.*\)/\1/p' "$here/compose.yaml" >"$top/options"
    [ "$(wc -l <"$top/options")" -ge 3 ]
    xargs chroot --userspec=10023:10023 "$image" /usr/sbin/postgrey --print-config <"$top/options"
}
check "the options in compose.yaml are options" compose_is_right
if python3 -c 'import yaml' 2>/dev/null; then
    check "compose.yaml is YAML, and one volume is in both services" python3 -c '
import sys, yaml
services = yaml.safe_load(open(sys.argv[1]))["services"]
volumes = [{v.split(":")[0] for v in s["volumes"]} for s in services.values()]
assert set.intersection(*volumes) == {"socket"}, volumes
assert "ports" not in services["postgrey"]' "$here/compose.yaml"
else
    echo "skipped: compose.yaml: no yaml of Python on this machine"
fi

# enter COMMAND...: as the user nobody knows, without any capability, in $image.
cat >"$top/enter.pl" <<'PERL'
use strict;
my ($root, $uid, @command) = @ARGV;
chroot $root and chdir "/" or die "$root: $!\n";
# PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS
syscall 157, 24, $_, 0, 0, 0 for 0 .. 63;
$) = "0 0";
($(, $)) = (0 + $uid, "$uid $uid");
($<, $>) = ($uid, $uid);
syscall 157, 38, 1, 0, 0, 0;
%ENV = ();
exec @command or die "$command[0]: $!\n";
PERL

# start COMMAND...: as pid 1, with a root that cannot be written to.
start() {
    # shellcheck disable=SC2016
    unshare --pid --mount --fork --kill-child --propagation private sh -c '
        image=$1 volume=$2
        shift 2
        mount --bind "$image" "$image"
        mount -o remount,bind,ro "$image"
        mount --bind /dev "$image/dev"
        mount -t proc proc "$image/proc"
        mount --bind "$volume" "$image/var/lib/postgrey"
        exec perl "$@"' sh "$image" "$volume" "$top/enter.pl" "$image" "$uid" \
        /usr/sbin/postgrey --log-time "$@" </dev/null >"$top/out" 2>&1 &
    parent=$!
    pid=
    for _ in $(seq 200); do
        pid=$(cat "/proc/$parent/task/$parent/children" 2>/dev/null || :)
        pid=${pid%% *}
        [ -n "$pid" ] && grep -q '^postgrey$' "/proc/$pid/comm" 2>/dev/null && return 0
        sleep 0.01
    done
    cat "$top/out"
    return 1
}

inside() {
    nsenter --target "$pid" --mount --pid perl "$top/enter.pl" "$image" "$uid" "$@"
}

# The answer for a client of this name, which is asked for until it comes.
ask() {
    perl -MIO::Socket::INET -e '
        alarm 10;
        my $server;
        until ($server = IO::Socket::INET->new("127.0.0.1:$ARGV[0]")) {
            select undef, undef, undef, 0.002;
        }
        print $server "request=smtpd_access_policy\nprotocol_state=RCPT\n",
            "client_address=192.0.2.77\nclient_name=$ARGV[1]\n",
            "sender=$ARGV[1]\@example.com\nrecipient=bob\@example.org\n\n";
        $server->flush;
        print scalar <$server>;' "$port" "$1"
}
answers() {
    local got
    got=$(ask "$1")
    echo "$1: $got"
    case $got in
    "$2"*) return 0 ;;
    *) return 1 ;;
    esac
}
gone_within() {
    local until=$(($(now) + $1))
    while [ -d "/proc/$pid" ]; do
        [ "$(now)" -lt "$until" ] || return 1
        sleep 0.01
    done
    wait "$parent" || :
}
no_zombies() {
    # Its parent has ended: the server is the parent of the second shell then.
    nsenter --target "$pid" --pid sh -c 'sh -c "sleep 0.3" & exit 0'
    for _ in $(seq 50); do
        sleep 0.1
        grep -l "^PPid:.$pid\$" /proc/[0-9]*/status 2>/dev/null | xargs grep -h '^Name' |
            grep -v postgrey || return 0
    done
    return 1
}

mkdir "$volume"
chown "$uid:$uid" "$volume"
chmod 700 "$volume"
options="--inet=127.0.0.1:$port --delay=1"

began=$(now)
# shellcheck disable=SC2086
check "it starts" start $options
check "a new client is greylisted" answers new.example.com "action=DEFER_IF_PERMIT Greylisted"
echo "container: first answer after $(($(now) - began)) ms"
check "it is pid 1" grep -q "^NSpid:.*[^0-9]1\$" "/proc/$pid/status"
check "as a user that nobody knows" grep -q "^Uid:.$uid.$uid.$uid.$uid\$" "/proc/$pid/status"
check "without capabilities" \
    test "$(grep -c '^Cap\(Inh\|Prm\|Eff\|Bnd\|Amb\):.0000000000000000$' "/proc/$pid/status")" = 5
check "the root cannot be written to" \
    test "$(nsenter --target "$pid" --mount sh -c "touch '$image/x' 2>&1 || :" | grep -c 'Read-only')" = 1
check "the health check is well" inside /usr/sbin/postgreyctl ping
check "commands work inside" inside /usr/sbin/postgreyctl stats
check "the log has times, on standard error" \
    grep -Eq '^20[0-9-]+T[0-9:]+(\+00:00|Z) .*action=greylist, reason=new' "$top/out"
check "processes without a parent are reaped" no_zombies
sleep 1
check "the same client comes in" answers new.example.com "action=PREPEND X-Greylist"

kill -TERM "$pid"
began=$(now)
check "TERM ends it within a second" gone_within 1000
echo "container: ended after $(($(now) - began)) ms"

# shellcheck disable=SC2086
check "it starts again" start $options
check "what it knew it knows" answers new.example.com "action=DUNNO"
check "another client is greylisted" answers second.example.com "action=DEFER_IF_PERMIT"
kill -KILL "$pid"
check "kill -9 ends all of it" gone_within 5000
# The delay of the second client.
sleep 1
# shellcheck disable=SC2086
check "it starts after a kill -9" start $options
check "and has lost nothing" answers second.example.com "action=PREPEND X-Greylist"
kill -TERM "$pid"
check "TERM ends it" gone_within 1000

fresh
# shellcheck disable=SC2086
check "another container starts over the volume" start $options
check "and knows the clients" answers new.example.com "action=DUNNO"
check "its health check is well" inside /usr/sbin/postgreyctl ping
kill -TERM "$pid"
check "TERM ends it, too" gone_within 1000
pid=

fresh
check "compose.yaml works, with its Postfix" bash "$here/tests/compose.sh" "$image" "$root"
tail -n 8 "$log" | grep -E '^(ok|skipped|FAILED|compose):' || :

summary container
