#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# compose.sh IMAGE DEBIAN - compose.yaml as it stands, as far as it goes without a
# daemon for containers: its postgrey from IMAGE, the root of what Containerfile
# makes; its Postfix built by buildah on DEBIAN, a directory by debootstrap, under
# the name that the file gives. Both share the volume, and asking and delivering are
# done in a network of their own. For tests/container.sh, as root.
set -euo pipefail

usage='usage: compose.sh IMAGE DEBIAN'
image=$(realpath "${1:?$usage}")
debian=$(realpath "${2:?$usage}")
here=$(realpath "$(dirname "$0")/..")
for program in buildah ip unshare perl; do
    if ! command -v "$program" >/dev/null; then
        echo "skipped: tests/compose.sh: no $program on this machine"
        exit 0
    fi
done
if ! python3 -c 'import yaml' 2>/dev/null; then
    echo "skipped: tests/compose.sh: no yaml of Python on this machine"
    exit 0
fi

top=$(mktemp -d)
log=$top/log

storage() {
    buildah --root "$top/store" --runroot "$top/run" \
        --storage-driver "${POSTGREY_STORAGE:-overlay}" "$@"
}
clean_up() {
    storage umount --all >/dev/null 2>&1 || :
    storage rm --all >/dev/null 2>&1 || :
    umount "$top/store/overlay" 2>/dev/null || :
    rm -rf --one-file-system "$top"
}
trap clean_up EXIT

# shellcheck source=tests/checks.sh
. "$here/tests/checks.sh"

python3 -c '
import sys, yaml
services = yaml.safe_load(open(sys.argv[1]))["services"]
open(sys.argv[2] + "/Dockerfile", "w").write(services["postfix"]["build"]["dockerfile_inline"])
print("\n".join(services["postgrey"]["command"]))' "$here/compose.yaml" "$top" >"$top/options"

base=$(sed -n 's/^FROM //p' "$top/Dockerfile")
made=$(storage from scratch)
cp -a "$debian/." "$(storage mount "$made")/"
storage umount "$made" >/dev/null
storage commit --quiet --rm "$made" "$base" >/dev/null
check "the image of Postfix is built" \
    storage build --isolation chroot --format docker --pull-never -t localhost/postfix \
    -f "$top/Dockerfile" "$top"
[ "$failures" -eq 0 ] || exit 1
postfix=$(storage mount "$(storage from localhost/postfix)")
# So that a test can be any client.
chroot "$postfix" postconf -e smtpd_authorized_xclient_hosts=127.0.0.1
chroot "$postfix" sh -c 'echo "127.0.0.1 localhost postgrey" >/etc/hosts'
mkdir -p "$postfix/var/spool/postfix/greylist" "$postfix/proc" "$postfix/dev"
mkdir "$top/database"
cp -a "$image" "$top/postgrey"
mkdir -p "$top/postgrey/dev" "$top/postgrey/proc"
chown 10023:10023 "$top/database"

# smtp SECONDS NAME ADDRESS: a mail of this client, as far as replies come within
# so many seconds. Prints them.
cat >"$top/smtp.pl" <<'PERL'
use strict;
use IO::Socket::INET;
my ($seconds, $name, $address) = @ARGV;
$| = 1;
$SIG{ALRM} = sub { print "no reply\n"; exit 0 };
my $server;
for (1 .. 1000) {
    $server = IO::Socket::INET->new("127.0.0.1:25") and last;
    select undef, undef, undef, 0.02;
}
$server or die "no server\n";
for my $command ("", "EHLO client", "XCLIENT NAME=$name ADDR=$address", "EHLO client",
    "MAIL FROM:<alice\@example.com>", "RCPT TO:<root\@localhost>", "DATA",
    "Subject: hello\r\n\r\nhello\r\n.") {
    print $server "$command\r\n" if $command;
    $server->flush;
    alarm $seconds;
    my $line;
    do { $line = <$server>; defined $line or exit 0 } while $line =~ /^\d\d\d-/;
    alarm 0;
    print +($command =~ /^(\w*)/)[0], " $line";
    exit 0 if $line !~ /^[23]/;
}
PERL

# A network, processes and mounts of their own; all end with the script.
# shellcheck disable=SC2016
unshare --net --pid --mount --fork --kill-child --propagation private bash -c '
    top=$1 postfix=$2
    ip link set lo up
    mount --bind /dev "$top/postgrey/dev"
    mount -t proc proc "$top/postgrey/proc"
    mount --bind "$top/database" "$top/postgrey/var/lib/postgrey"
    mount --bind /dev "$postfix/dev"
    mount --bind "$top/postgrey/run/postgrey" "$postfix/var/spool/postfix/greylist"
    mapfile -t options <"$top/options"
    chroot --userspec=10023:10023 "$top/postgrey" /usr/sbin/postgrey --log-time "${options[@]}" \
        </dev/null >"$top/server" 2>&1 &
    for _ in $(seq 500); do
        [ -S "$top/postgrey/run/postgrey/socket" ] && break
        sleep 0.01
    done
    # As pid 1, as in a container.
    unshare --pid --mount --fork --kill-child sh -c "
        mount -t proc proc \"\$1/proc\" && exec chroot \"\$1\" postfix start-fg" sh "$postfix" \
        </dev/null >"$top/postfix" 2>&1 &
    name=$(sed -n "s/^\([a-z0-9-]*\.[a-z]*\)$/\1/p" "$top/postgrey/etc/postgrey/postgrey_whitelist_clients" | head -n 1)
    perl "$top/smtp.pl" 20 "mail.$name" 192.0.2.10 >"$top/known"
    perl "$top/smtp.pl" 3 "[UNAVAILABLE]" 192.0.2.20 >"$top/impatient"
    perl "$top/smtp.pl" 20 "[UNAVAILABLE]" 192.0.2.20 >"$top/again"
    chroot --userspec=10023:10023 "$top/postgrey" /usr/sbin/postgreyctl stats >"$top/stats"
' bash "$top" "$postfix" </dev/null

cat "$top"/known "$top"/impatient "$top"/again "$top"/stats "$top"/server "$top"/postfix >>"$log"
check "a whitelisted client is let in, and its mail is taken" \
    test "$(sed 's/ .*//' "$top/known" | tr '\n' ' '; tail -n 1 "$top/known" | cut -d ' ' -f 2)" = \
    " EHLO XCLIENT EHLO MAIL RCPT DATA Subject 250"
check "it was asked about by the socket and by the network" \
    test "$(grep -c 'action=pass, reason=client whitelist.*192.0.2.10' "$top/server")" = 2
check "one that does not wait is held" grep '^no reply' "$top/impatient"
check "and put off when it comes again" grep '^RCPT 450 .*Greylisted' "$top/again"
check "Postfix has had no trouble" \
    test "$(grep -cE 'warning|error|fatal|panic' "$top/postfix")" = 0

summary compose
