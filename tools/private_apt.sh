# Sourced by tools/peers.sh and tools/suite/fetch.sh: packages of a Debian release, whichever
# release this machine runs, without a change to the machine. Lists and caches lie below $apt, a
# directory that the caller makes; the mirror is the one that apt already uses.

# The mirror's address; fails where apt has none, as on another distribution.
debian_mirror() {
    apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 2>/dev/null |
        grep '/debian/$' | head -n 1 | grep .
}

# private_sources deb|deb-src RELEASE...: the lists to use from now on.
private_sources() {
    kind=$1
    shift
    mirror=$(debian_mirror) || return 1
    mkdir -p "$apt/parts" "$apt/lists/partial" "$apt/cache/archives/partial"
    for release in "$@"; do
        echo "$kind [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $release main"
    done > "$apt/parts/private.list"
    private_apt -o APT::Update::Error-Mode=any update
}

# apt-get with these lists only. It sees no package as installed, so that what it resolves is
# complete, and no preferences of this machine.
private_apt() {
    apt-get -qq -o Acquire::Retries=3 -o Acquire::Languages=none -o APT::Sandbox::User= \
        -o Dir::Etc::sourcelist=/dev/null -o Dir::Etc::sourceparts="$apt/parts" \
        -o Dir::Etc::Preferences=/dev/null -o Dir::Etc::PreferencesParts=/dev/null \
        -o Dir::State::Lists="$apt/lists" -o Dir::State::status=/dev/null \
        -o Dir::Cache="$apt/cache" "$@"
}
