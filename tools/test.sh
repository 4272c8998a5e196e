#!/bin/sh
# All tests of the workspace, which must have been built. Some files have one long test that mostly
# waits: they run beside the others, and their output is shown when they have ended.
#
#     CARGO=cargo tools/test.sh
set -u
cd "$(dirname "$0")/.."
cargo=${CARGO:-cargo}

LONG="chaos cluster_simulation exercises lessons observed_fields"

# --test NAME for each file of integration tests that is one of these (`only`) or is none (`but`).
targets() {
    for file in tests/*.rs ae/tests/*.rs; do
        name=$(basename "$file" .rs)
        case " $LONG " in
            *" $name "*) [ "$1" = only ] ;;
            *) [ "$1" = but ] ;;
        esac && echo "--test $name"
    done
}

for name in $LONG; do
    [ -e "tests/$name.rs" ] || [ -e "ae/tests/$name.rs" ] || { echo "no tests in $name.rs" >&2; exit 2; }
done
log=$(mktemp)
trap 'rm -f "$log"' EXIT
$cargo test --workspace $(targets only) >"$log" 2>&1 &
beside=$!
trap 'kill $beside 2>/dev/null; exit 130' INT TERM
status=0
$cargo test --workspace --lib --bins $(targets but) || status=$?
$cargo test --workspace --doc || status=$?
echo "== tests that ran beside these"
wait $beside || status=$?
cat "$log"
exit $status
