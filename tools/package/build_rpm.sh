#!/bin/sh
# make rpm: an RPM package of the same files as the Debian one, by cargo-generate-rpm, which needs
# no rpm and no network.
#
#     tools/package/build_rpm.sh TARGET_DIR OUT_DIR [VERSION]
#
# The list of files is made from what stage.sh has put in place; the scripts are written for rpm,
# which calls them with a number: 1 at the first installation, 2 at an upgrade, 0 at a removal.
set -eu
umask 022
here=$(cd "$(dirname "$0")" && pwd)
project=$(cd "$here/../.." && pwd)
programs=$1 out=$2
version=${3:-$(sed -n 's/^version = "\(.*\)"/\1/p' "$project/Cargo.toml" | head -n 1)}
command -v cargo-generate-rpm >/dev/null || { echo "rpm: run: cargo install cargo-generate-rpm" >&2; exit 1; }
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
files=$scratch/files
mkdir -p "$files" "$scratch/package" "$out"
out=$(cd "$out" && pwd)
"$here/stage.sh" "$programs" "$files" "$version"

# One line of settings for each file; those below /etc are kept at an upgrade if they were changed.
assets() {
    (cd "$files" && find . -type f -printf '%m %P\n' | sort -k 2) | while read -r mode path; do
        case $path in
            etc/*) config=', config = "noreplace"' ;;
            *) config= ;;
        esac
        # Distributions with RPM have /lib as a link to /usr/lib.
        case $path in
            lib/*) dest=/usr/$path ;;
            *) dest=/$path ;;
        esac
        echo "  { source = \"$files/$path\", dest = \"$dest\", mode = \"$mode\"$config },"
    done
}
cat > "$scratch/package/Cargo.toml" <<MANIFEST
[package]
name = "aeris"
version = "$version"
license = "$(sed -n 's/^license = "\(.*\)"/\1/p' "$project/Cargo.toml" | head -n 1)"
description = "Redis-compatible server with one thread and one loop"

[package.metadata.generate-rpm]
summary = "Redis-compatible server with one thread and one loop"
assets = [
$(assets)
]
post_install_script = """
systemd-sysusers aeris.conf
mkdir -p /etc/aeris/conf.d
chown root:aeris /etc/aeris /etc/aeris/conf.d
chmod 2770 /etc/aeris /etc/aeris/conf.d
find /etc/aeris -name '*.conf' -user root -exec chown aeris:aeris {} + -exec chmod 640 {} +
install -d -o aeris -g aeris -m 700 /var/lib/aeris
install -d -o aeris -g aeris -m 750 /var/log/aeris
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload
    if [ \$1 != 1 ]; then
        systemctl try-restart aeris.service || true
    elif ! systemctl preset aeris.service; then
        echo "aeris: aeris.service has no preset: another server's unit may have its alias redis.service." >&2
        echo "aeris: to run aeris in its place: systemctl disable --now redis && systemctl enable --now aeris" >&2
    fi
fi
"""
pre_uninstall_script = """
if [ \$1 = 0 ] && [ -d /run/systemd/system ]; then systemctl --no-reload disable --now aeris.service || true; fi
"""

[package.metadata.generate-rpm.requires]
systemd = "*"
MANIFEST
mkdir -p "$scratch/package/src"
: > "$scratch/package/src/lib.rs"
(cd "$scratch/package" && cargo-generate-rpm --auto-req builtin -o "$out/")
