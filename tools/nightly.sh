#!/bin/sh
# Whether the tools that need a nightly compiler are there; says how to get what is missing.
#
#     tools/nightly.sh [miri] [fuzz]
set -eu

missing() {
    echo "$1; install it with: $2" >&2
    exit 1
}

cargo +nightly --version >/dev/null 2>&1 ||
    missing "there is no nightly compiler" "rustup toolchain install nightly"
for tool; do
    case $tool in
        miri) cargo +nightly miri --version >/dev/null 2>&1 ||
            missing "Miri is not there" "rustup +nightly component add miri rust-src" ;;
        fuzz) cargo fuzz --version >/dev/null 2>&1 ||
            missing "cargo-fuzz is not there" "cargo install cargo-fuzz --locked" ;;
    esac
done
