#!/bin/sh
# Fetch the Tcl suite of Valkey 8.1: the tests/ of the upstream tarball in Debian 13's
# source package, from the mirror that apt already uses. Nothing is installed and apt's
# own lists stay as they are. A tree that is already there is left alone.
#
#     tools/suite/fetch.sh [DIR]     default: tests/.peers; prints the tree's path
#
# A suite that can't be had is reported on stderr; with REQUIRE_PEERS=1 it is a failure.
set -eu

RELEASE=trixie
PACKAGE=valkey
project=$(cd "$(dirname "$0")/../.." && pwd)
dir=${1:-$project/tests/.peers}
. "$project/tools/private_apt.sh"

say() { echo "suite: $*" >&2; }

# The tree, if it is there: DIR/valkey-8.1.1 and the like.
tree() {
    for helper in "$dir/$PACKAGE"-*/tests/test_helper.tcl; do
        [ -f "$helper" ] && echo "${helper%/tests/test_helper.tcl}"
    done | tail -n 1
}

# The upstream tarball alone: a mirror may lack the other parts of the source package. The signed
# index names its address and its hash, and apt-helper refuses a file with another one.
fetch() {
    private_sources deb-src $RELEASE >&2 || { say "apt does not reach a Debian mirror"; return 1; }
    # A line is: 'URI' FILE SIZE SHA256:HASH
    private_apt source --print-uris $PACKAGE | grep '\.orig\.tar\.[a-z0-9]*'"'" > "$apt/tarball" ||
        { say "the index of $RELEASE names no tarball of $PACKAGE"; return 1; }
    read -r uri file _ hash < "$apt/tarball"
    uri=${uri#\'} uri=${uri%\'}
    /usr/lib/apt/apt-helper -qq -o APT::Sandbox::User= download-file "$uri" "$apt/$file" "$hash" >&2 ||
        { say "$file did not come, or is not the file that the index names"; return 1; }
    mkdir "$apt/unpacked"
    tar -xf "$apt/$file" -C "$apt/unpacked" || { say "$file can't be unpacked (is xz there?)"; return 1; }
}

# Only the tests and what they read: the sources are none of our business.
keep_tests() {
    for unpacked in "$apt/unpacked/$PACKAGE"-*/; do
        name=$(basename "$unpacked")
        mkdir -p "$dir/$name/src"
        mv "$unpacked/tests" "$unpacked/utils" "$unpacked/$PACKAGE.conf" "$unpacked/sentinel.conf" "$dir/$name/"
        mv "$unpacked/src/version.h" "$dir/$name/src/"
    done
}

mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
if [ -z "$(tree)" ]; then
    say "fetching the suite into $dir"
    apt=$(mktemp -d)
    trap 'rm -rf "$apt"' EXIT
    if fetch; then keep_tests; fi
fi
found=$(tree)
if [ -z "$found" ]; then
    say "the suite is not there: its tests are left out"
    case ${REQUIRE_PEERS:-0} in 1 | all) exit 1 ;; esac
    exit 0
fi
echo "$found"
