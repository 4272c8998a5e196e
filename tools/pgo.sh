#!/bin/sh
# make pgo: the server built with a profile of itself under the benchmark's workloads, beside the
# one without.
#
# tools/pgo.sh TARGET_DIR [PROFILE]      default: release; the result is
# TARGET_DIR/pgo/PROFILE/aeris-server
#
# The build with counters, the run and the second build take three times as long as `make`. Needs
# the component llvm-tools (rustup component add llvm-tools), whose version is that of the compiler,
# and no C toolchain but the usual one.
set -eu
project=$(cd "$(dirname "$0")/.." && pwd)
target=$1 profile=${2:-release}
bin=$(rustc --print sysroot)/lib/rustlib/$(rustc -vV | sed -n 's/^host: //p')/bin
[ -x "$bin/llvm-profdata" ] || { echo "pgo: run: rustup component add llvm-tools" >&2; exit 1; }
counts=$target/pgo-counts
cd "$project"
rm -rf "$counts"
mkdir -p "$counts"

build() { RUSTFLAGS="$1" cargo build --profile "$profile" --target-dir "$2" --bin aeris-server; }

echo "pgo: the server with counters"
build "-Cprofile-generate=$counts" "$target/pgo-counting"
cargo build --release -p bench-load --target-dir "$target"
echo "pgo: the workloads"
# A server ends by SIGTERM, in order, and writes its counts.
tools/bench/bench --server "counting=$target/pgo-counting/$profile/aeris-server" --load "$target/release/bench-load" \
    --only cpu --turns 1 --seconds 0.5
"$bin/llvm-profdata" merge -o "$counts/merged.profdata" "$counts"
echo "pgo: the server with the profile"
build "-Cprofile-use=$counts/merged.profdata" "$target/pgo"
ls -l "$target/pgo/$profile/aeris-server"
