#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# check.sh - run all tests, and say at the end what was not tested and why.
#
#   check.sh              with what is on this machine ("make check")
#   check.sh --install    on Debian, as root: install what the tests can use
#                         first ("make check-all")
#   check.sh --long       the same for longer, fuzzing guided by coverage, and the
#                         package of Debian ("make check-long"):
#                         POSTGREY_SOAK_MINUTES (20), POSTGREY_KILLS (500),
#                         POSTGREY_POWER_CUTS (500), POSTGREY_FUZZ_SECONDS (60),
#                         POSTGREY_DIFFERENTIAL requests (200000),
#                         POSTGREY_MATRIX (all), POSTGREY_SESSIONS (5000),
#                         POSTGREY_OPTION_SETS (2000), POSTGREY_RACES (25000),
#                         POSTGREY_REPORT_REQUESTS (1000000),
#                         POSTGREY_REPORT_RCPTS (620000), POSTGREY_STORMS (15
#                         times the troubles)
#
# A test that lacks something says so in a line that begins with "skipped", best
# in the form "skipped: WHAT: no PROGRAM on this machine".

# Solaris has the awk of POSIX there.
PATH=/usr/xpg4/bin:$PATH
export PATH

long=
case $1 in
--install) sh tests/packages.sh ;;
--long)
        long=yes
        export POSTGREY_SOAK_MINUTES="${POSTGREY_SOAK_MINUTES:-20}"
        export POSTGREY_KILLS="${POSTGREY_KILLS:-500}"
        export POSTGREY_POWER_CUTS="${POSTGREY_POWER_CUTS:-500}"
        export POSTGREY_DIFFERENTIAL="${POSTGREY_DIFFERENTIAL:-200000}"
        export POSTGREY_MATRIX="${POSTGREY_MATRIX:-all}"
        export POSTGREY_SESSIONS="${POSTGREY_SESSIONS:-5000}"
        export POSTGREY_OPTION_SETS="${POSTGREY_OPTION_SETS:-2000}"
        export POSTGREY_RACES="${POSTGREY_RACES:-25000}"
        export POSTGREY_REPORT_REQUESTS="${POSTGREY_REPORT_REQUESTS:-1000000}"
        export POSTGREY_REPORT_RCPTS="${POSTGREY_REPORT_RCPTS:-620000}"
        export POSTGREY_STORMS="${POSTGREY_STORMS:-15}"
        ;;
'') ;;
*)
        echo "usage: $0 [--install | --long]" >&2
        exit 2
        ;;
esac

target=${CARGO_TARGET_DIR:-target}
mkdir -p "$target"
log=$target/check.log
status=$target/check.status
{
        cargo test --profile tested --locked --no-fail-fast -- --show-output 2>&1
        echo "$?" >"$status"
} </dev/null | tee "$log"

echo
# What each test binary said in its last line, as one.
awk '/^test result: / {
        passed += $4; failed += $6; ignored += $8; runs++
} END {
        printf "check: %d passed, %d failed, %d ignored", passed, failed, ignored
        print " in " runs + 0 " programs"
}' "$log"
# What some of them count besides. The harness may have begun a line before.
sed -n 's/^postfix: \([0-9]* checks\), /check: \1 behind a real Postfix, /p' "$log"
sed -n 's/.*replayed: \([0-9]*\) dialogues.*/\1/p' "$log" |
        awk '{ replayed += $1 }
        END { if (NR) print "check: " replayed " dialogues of the original replayed" }'
# The longest answers while Redis was in trouble, and what else was measured with it.
awk '/trouble: .*: longest answer / && !/: tried again/ {
        sub(/.*: longest answer /, "")
        if ($1 + 0 > longest) longest = $1 + 0
        if ($7 + 0 > listed) listed = $7 + 0
        troubles++
} END {
        if (troubles) {
                printf "check: Redis in trouble %d times: longest answer", troubles
                printf " %.1f ms, of a whitelisted client %.1f ms\n", longest, listed
        }
}' "$log"
sed -n 's/.*\(slots that moved: .*\)/check: \1/p; s/.*\(a master that .*: back after\)/check: \1/p
        s/.*\(a storm on .*\)/check: \1/p' "$log"
# Each program that was missed, with the tests that missed it.
sed -n 's/.*skipped: \(.*\): no \(.*\) on this machine.*/\2	\1/p' "$log" |
        sort -u |
        awk -F '\t' '
        BEGIN {
                package["postmap"] = package["postconf"] = package["postfix"] = "postfix"
                package["checkbashisms"] = "devscripts"
                package["ksh93"] = "ksh93u+m"
                package["xmllint"] = "libxml2-utils"
                package["systemd-analyze"] = "systemd"
                package["mdb_dump"] = "lmdb-utils"
                package["db_dump"] = package["db_load"] = "db-util"
                package["ps"] = "procps"
                package["man"] = "man-db"
        }
        $1 != program {
                program = $1
                printf "check: skipped for want of %s", program
                if (program ~ /^[a-z0-9_-]+$/)
                        printf " (package %s)", (program in package) ? package[program] : program
                print ":"
        }
        { print "           " $2 }'
# What is said in other words.
grep 'skipped[ :]' "$log" | grep -v 'on this machine' | sed 's/.*skipped/skipped/' |
        sort -u | sed 's/^/check: /'
result=$(cat "$status")
# What is built without Redis.
cargo check --profile tested --locked --no-default-features </dev/null || result=1
if [ -n "$long" ]; then
        sh tests/fuzz.sh || result=1
        if cargo deb --version >/dev/null 2>&1; then
                sh deb/build.sh &&
                        bash tests/deb.sh "$target"/debian/postgrey_*.deb ||
                        result=1
        else
                echo "check: skipped: the Debian package (cargo install --locked cargo-deb)"
        fi
fi
if [ "$result" = 0 ]; then
        echo "check: all is well"
else
        echo "check: FAILED"
fi
exit "$result"
