#!/bin/sh
# Fetch the Tcl suite of Valkey 8.1: the tests/ of the upstream tarball in Debian 13's
# source package, from the mirror that apt already uses. Nothing is installed and apt's
# own lists stay as they are. A tree that is already there is left alone.
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
        -o Dir::State::Lists="$apt/lists" -o Dir::Cache="$apt/cache" "$@"
}

# The upstream tarball alone: a mirror may lack the other parts of the source package. The signed
# index names its address and its hash, and apt-helper refuses a file with another one.
fetch() {
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 2>/dev/null |
             grep '/debian/$' | head -n 1)
    [ -n "$mirror" ] || { say "apt knows no Debian mirror"; exit 1; }
    mkdir -p "$apt/parts" "$apt/lists/partial" "$apt/cache/archives/partial"
    echo "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $RELEASE main" \
        > "$apt/parts/$RELEASE.list"
    private_apt update >&2
    # A line is: 'URI' FILE SIZE SHA256:HASH
    private_apt source --print-uris $PACKAGE | grep '\.orig\.tar\.[a-z0-9]*'"'" |
        { read -r uri file _ hash && [ -n "$hash" ] || { say "the index names no tarball"; exit 1; }
          uri=${uri#\'} uri=${uri%\'}
          /usr/lib/apt/apt-helper -qq -o APT::Sandbox::User=root download-file "$uri" "$apt/$file" "$hash" >&2
          mkdir "$apt/unpacked"
          tar -xf "$apt/$file" -C "$apt/unpacked"; }
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
    (fetch)
    keep_tests
fi
found=$(tree)
[ -n "$found" ] || { say "no test_helper.tcl in $dir/$PACKAGE-*"; exit 1; }
echo "$found"
