#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# fuzz.sh - run the targets of tests/fuzz.rs guided by coverage, by libFuzzer and
# on stable Rust, for POSTGREY_FUZZ_SECONDS (60) each.
#
#   sh tests/fuzz.sh [TARGET ...]
#
# An input that fails is left in tests/__fuzz__/TARGET/crashes, where every "cargo
# test" tries it again: a finding is committed with what mends it. What reaches new
# code is kept in the target directory, for the next run to begin with.
#
# This is what cargo-bolero does, too, but that builds all tests of the package,
# and those without libFuzzer in them cannot be linked when their code is
# instrumented. The programs, which cargo builds beside this test, have the same
# want, but nobody runs them: the linker is told to overlook it.

seconds=${POSTGREY_FUZZ_SECONDS:-60}
target=${CARGO_TARGET_DIR:-target}/fuzz
cd "$(dirname "$0")/.." || exit 1

host=$(rustc -vV | sed -n 's/^host: //p')
case $host in
*-linux-*) ;;
*)
        echo "check: skipped: coverage-guided fuzzing: this is not Linux"
        exit 0
        ;;
esac
if ! command -v "${CXX:-c++}" >/dev/null; then
        echo "check: skipped: coverage-guided fuzzing: no C++ compiler on this machine"
        exit 0
fi

RUSTFLAGS="--cfg fuzzing --cfg fuzzing_libfuzzer -Cpasses=sancov-module"
for option in level=4 inline-8bit-counters pc-table trace-compares; do
        RUSTFLAGS="$RUSTFLAGS -Cllvm-args=-sanitizer-coverage-$option"
done
RUSTFLAGS="$RUSTFLAGS -Clink-arg=-Wl,--unresolved-symbols=ignore-all"
export RUSTFLAGS

# With --target the flags are not for build scripts and macros of derive.
build() {
        cargo test --locked --profile tested --target "$host" --target-dir "$target" \
                --test fuzz "$@" </dev/null
}

build --no-run || exit 1
if [ $# -eq 0 ]; then
        for folder in tests/__fuzz__/*/corpus; do
                set -- "$@" "$(basename "$(dirname "$folder")")"
        done
fi
result=0
for name; do
        home=tests/__fuzz__/$name
        found=$target/found/$name
        log=$target/$name.log
        mkdir -p "$found" "$home/crashes"
        BOLERO_LIBFUZZER_ARGS="$found $home/corpus $home/crashes \
-artifact_prefix=$home/crashes/ -dict=tests/__fuzz__/dictionary -max_len=4096 \
-timeout=10 -max_total_time=$seconds" \
                build "$name" -- --exact --nocapture >"$log" 2>&1
        status=$?
        if [ "$status" -eq 0 ] && grep '^Done ' "$log" >/dev/null; then
                awk -v name="$name" '
                /^#.*INITED/ { first = $4 }
                /^#.*DONE/ { last = $4 }
                /^Done/ {
                        printf "fuzz: %s: %d inputs, %d edges of the code reached", name, $2, last
                        print ", " first " of them from what was known"
                }' "$log"
        else
                tail -n 60 "$log"
                echo "fuzz: $name: FAILED, see $log; the input is in $home/crashes"
                result=1
        fi
        rmdir "$home/crashes" 2>/dev/null
done
exit "$result"
