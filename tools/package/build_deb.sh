#!/bin/sh
# make deb: a Debian package from the programs of TARGET_DIR, with dpkg-deb alone.
#
#     tools/package/build_deb.sh TARGET_DIR OUT_DIR [VERSION]
#
# stage.sh puts the files in place.
set -eu
umask 022
here=$(cd "$(dirname "$0")" && pwd)
project=$(cd "$here/../.." && pwd)
programs=$1 out=$2
version=${3:-$(sed -n 's/^version = "\(.*\)"/\1/p' "$project/Cargo.toml" | head -n 1)}
arch=$(dpkg --print-architecture)
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
chmod 755 "$root"
mkdir -p "$root/DEBIAN" "$out"

"$here/stage.sh" "$programs" "$root" "$version"

# The C library that the programs were linked with is the oldest one that they run on.
libc=$(grep -aohE 'GLIBC_2\.[0-9]+' "$root"/usr/bin/* | sort -Vu | tail -n 1 | sed 's/GLIBC_//')
cat > "$root/DEBIAN/control" <<CONTROL
Package: aeris
Version: $version
Architecture: $arch
Maintainer: The aeris project <aeris@localhost>
Installed-Size: $(du -sk "$root" | cut -f 1)
Depends: libc6 (>= $libc), libgcc-s1, systemd | systemd-sysusers
Suggests: redis-tools
Section: database
Priority: optional
Description: Redis-compatible server with one thread and one loop
 A server for the protocol of Redis, with its data types, files, scripts,
 replication and settings. Clients for Redis work with it unchanged.
CONTROL
(cd "$root" && find etc -type f -printf '/%p\n' | sort) > "$root/DEBIAN/conffiles"
for script in postinst prerm postrm; do install -m 755 "$here/$script" "$root/DEBIAN/$script"; done
(cd "$root" && find usr lib -type f -exec md5sum {} +) > "$root/DEBIAN/md5sums"
dpkg-deb --root-owner-group --build "$root" "$out/aeris_${version}_${arch}.deb"
