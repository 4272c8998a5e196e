#!/bin/sh
# Runs each fuzz target for some seconds, from its seeds and from what earlier runs found.
#
#     tools/fuzz.sh SECONDS [TARGET]...
#
# A finding ends it: the input is then in tests/fuzz/artifacts/TARGET, and cargo fuzz says how to
# run it again.
set -eu
cd "$(dirname "$0")/.."

seconds=$1
shift
tools/nightly.sh fuzz
[ $# -gt 0 ] || set -- $(ls tests/fuzz/seeds)
fuzz="cargo +nightly fuzz"
$fuzz build --fuzz-dir tests/fuzz
for target; do
    echo "== $target, $seconds s"
    mkdir -p "tests/fuzz/corpus/$target"
    $fuzz run --fuzz-dir tests/fuzz "$target" "tests/fuzz/corpus/$target" "tests/fuzz/seeds/$target" -- \
        -max_total_time="$seconds" -max_len=4096 -timeout=10 -rss_limit_mb=2048 -print_final_stats=1
done
