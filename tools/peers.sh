#!/bin/sh
# Set up what the tests compare with: the real redis-server and valkey-server,
# their command line tools, tcl and python3. On Debian and as root they are
# installed (no service is started); elsewhere this says what is missing, and
# the tests that need it are left out. Quick when everything is there.
#
#     tools/peers.sh                    a missing peer is only reported
#     REQUIRE_PEERS=1 tools/peers.sh    a missing peer is a failure
set -eu

# program:package. xz unpacks the suite (tools/suite/fetch.sh).
PEERS="redis-cli:redis-tools redis-benchmark:redis-tools redis-server:redis-server
       valkey-server:valkey-server valkey-cli:valkey-tools valkey-benchmark:valkey-tools
       tclsh:tcl python3:python3 xz:xz-utils"

say() { echo "peers: $*" >&2; }

# What is not on the PATH: `missing 1` the programs, `missing 2` their packages.
missing() {
    for peer in $PEERS; do
        command -v "${peer%:*}" >/dev/null 2>&1 || echo "$peer"
    done | cut -d: -f"$1" | sort -u | tr '\n' ' '
}

apt_quietly() {
    env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Acquire::Retries=3 -o Dpkg::Use-Pty=0 "$@" >&2
}

has_candidate() { apt-cache policy "$1" 2>/dev/null | grep -q '^  Candidate: [0-9]'; }

# Valkey for Debian 12 is in its backports: add them, from the mirror in use.
enable_backports() {
    release=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 2>/dev/null |
             grep '/debian/$' | head -n 1)
    [ -n "$release" ] && [ -n "$mirror" ] || return 0
    say "adding $release-backports"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $release-backports main" \
        > "/etc/apt/sources.list.d/$release-backports.list"
    apt_quietly update
}

# Package scripts ask policy-rc.d before they start a service: answer no.
install_quietly() {
    policy=/usr/sbin/policy-rc.d
    made=no
    if [ ! -e $policy ]; then
        made=yes
        printf '#!/bin/sh\nexit 101\n' > $policy
        chmod 755 $policy
    fi
    status=0
    apt_quietly install -y --no-install-recommends "$@" || status=$?
    if [ $made = yes ]; then rm -f $policy; fi
    return $status
}

install_missing() {
    packages=$(missing 2)
    say "installing: $packages"
    # shellcheck disable=SC2086
    for package in $packages; do
        has_candidate "$package" || { apt_quietly update; break; }
    done
    case $packages in *valkey*) has_candidate valkey-server || enable_backports ;; esac
    # One by one, so that one that can't be had doesn't cost the others.
    for package in $packages; do
        install_quietly "$package" || { apt_quietly update && install_quietly "$package"; } ||
            say "could not install $package"
    done
}

if [ -n "$(missing 1)" ] && [ -f /etc/debian_version ] && [ "$(id -u)" = 0 ]; then
    install_missing
fi
left=$(missing 1)
if [ -n "$left" ]; then
    say "missing: ${left}(tests that need them are left out)"
    if [ "${REQUIRE_PEERS:-0}" = 1 ]; then exit 1; fi
fi
