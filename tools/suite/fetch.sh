#!/bin/sh
# Fetch the Tcl suite of Valkey 8.1: the tests/ of Debian 13's source package,
# from the mirror that apt already uses. Nothing is installed and apt's own lists
# stay as they are. What is already there is left alone.
#
#     tools/suite/fetch.sh [DIR]     default: tests/.peers; prints the tree's path
set -eu

RELEASE=trixie
PACKAGE=valkey
project=$(cd "$(dirname "$0")/../.." && pwd)
dir=${1:-$project/tests/.peers}

say() { echo "suite: $*" >&2; }

# The tree, if it is there: DIR/valkey-8.1.1 and the like.
tree() {
    for helper in "$dir/$PACKAGE"-*/tests/test_helper.tcl; do
        [ -f "$helper" ] && echo "${helper%/tests/test_helper.tcl}"
    done | tail -n 1
}

# apt with lists and caches of its own, for the source packages of $RELEASE only.
private_apt() {
    apt-get -qq -o Acquire::Retries=3 -o APT::Sandbox::User=root \
        -o Dir::Etc::sourcelist=/dev/null -o Dir::Etc::sourceparts="$apt/parts" \
        -o Dir::State::Lists="$apt/lists" -o Dir::Cache="$apt/cache" "$@" >&2
}

fetch() {
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 2>/dev/null |
             grep '/debian/$' | head -n 1)
    [ -n "$mirror" ] || { say "apt knows no Debian mirror"; exit 1; }
    mkdir -p "$apt/parts" "$apt/lists/partial" "$apt/cache/archives/partial"
    echo "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $RELEASE main" \
        > "$apt/parts/$RELEASE.list"
    cd "$apt"
    private_apt update
    private_apt source --download-only $PACKAGE
    dpkg-source --no-check -x "$PACKAGE"_*.dsc >&2
}

# Only the tests and what they read: the sources are none of our business.
keep_tests() {
    for unpacked in "$apt/$PACKAGE"-*/; do
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
    (fetch)
    keep_tests
fi
found=$(tree)
[ -n "$found" ] || { say "no test_helper.tcl in $dir/$PACKAGE-*"; exit 1; }
echo "$found"
