#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# checks.sh - read by scripts of tests, which have set "log", a file:
#
#   check WHAT COMMAND...   runs the command and says "ok: WHAT" or, with the end
#                           of the log, "FAILED: WHAT"
#   summary NAME            says how many; true if none has failed

# The file of the script.
: "${log:?}"
checks=0
failures=0

check() {
        what=$1
        shift
        checks=$((checks + 1))
        if "$@" >>"$log" 2>&1; then
                echo "ok: $what"
        else
                failures=$((failures + 1))
                echo "FAILED: $what"
                tail -n 30 "$log" | sed 's/^/    /'
        fi
}

summary() {
        echo "$1: $checks checks, $failures failed"
        [ "$failures" -eq 0 ]
}
