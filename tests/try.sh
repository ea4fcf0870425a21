#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# try.sh - "make run": the server in the foreground on 127.0.0.1:10023, with a
# database in ./var, until it is interrupted.
set -e

program=${CARGO_TARGET_DIR:-target}/release/postgrey
case $program in
/*) ;;
*) program=$(pwd)/$program ;;
esac

mkdir -p var
cp conf/postgrey_whitelist_clients conf/postgrey_whitelist_recipients var
# The server refuses to work as root. The user it becomes may not be allowed
# to pass the directories above: it starts in var and names all files from
# there.
user=
if [ "$(id | sed 's/^uid=\([0-9]*\).*/\1/')" = 0 ]; then
        user=--user=nobody
        group=$(id -gn nobody)
        chown -R "nobody:$group" var
        user="$user --group=$group"
fi
cd var

cat <<'END'
postgrey listens on 127.0.0.1 port 10023; ^C ends it, its database is in ./var.
Ask it from another terminal, for instance with this, twice within 10 seconds
and once more afterwards:

    printf '%s\n' request=smtpd_access_policy protocol_state=RCPT \
        client_address=192.0.2.1 client_name=mail.example.com \
        sender=alice@example.com recipient=bob@example.org '' |
        nc -w 1 127.0.0.1 10023

Without nc(1), in bash: put "exec 3<>/dev/tcp/127.0.0.1/10023" in front, send
the lines ">&3" instead of through nc, and read the answer with "head -n 1 <&3".
In main.cf of Postfix: check_policy_service inet:127.0.0.1:10023

END
# shellcheck disable=SC2086
exec "$program" --inet=127.0.0.1:10023 --dbdir=. --delay=10 $user \
        --whitelist-clients=postgrey_whitelist_clients \
        --whitelist-recipients=postgrey_whitelist_recipients "$@"
