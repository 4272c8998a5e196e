#!/bin/sh
# The files of a package, below ROOT, from the programs of TARGET_DIR: for build_deb.sh and
# build_rpm.sh.
#
#     tools/package/stage.sh TARGET_DIR ROOT VERSION
#
# Man pages and completions are made from the programs' own texts, so they can't become old: the
# options from --help, the settings from redis.conf, the words to complete from the table of
# settings (--completion).
set -eu
umask 022
here=$(cd "$(dirname "$0")" && pwd)
project=$(cd "$here/../.." && pwd)
programs=$1 root=$2 version=$3

put() { install -D -m "$1" "$2" "$root/$3"; }

for program in aeris-server aeris-check-rdb aeris-check-aof; do
    put 755 "$programs/$program" "usr/bin/$program"
    if command -v strip >/dev/null; then strip --strip-debug "$root/usr/bin/$program"; fi
done
put 644 "$here/aeris.service" lib/systemd/system/aeris.service
put 644 "$here/aeris@.service" lib/systemd/system/aeris@.service
put 644 "$here/aeris.sysusers" usr/lib/sysusers.d/aeris.conf
put 644 "$here/aeris.tmpfiles" usr/lib/tmpfiles.d/aeris.conf
put 644 "$here/aeris.sysctl" usr/lib/sysctl.d/60-aeris.conf
put 644 "$here/aeris.logrotate" etc/logrotate.d/aeris
put 644 "$here/aeris.socket" usr/share/doc/aeris/examples/aeris.socket
put 644 "$project/tools/grafana/dashboard.json" usr/share/doc/aeris/examples/grafana.json
put 644 "$project/LICENSE" usr/share/doc/aeris/copyright
put 644 "$project/README.md" usr/share/doc/aeris/README.md
gzip -9nc "$project/CHANGELOG.md" > "$root/usr/share/doc/aeris/changelog.gz"

# The settings of the package: redis.conf with other values for these, and a directory of files that
# are read last.
mkdir -p "$root/etc/aeris/conf.d"
sed -e 's|^bind .*|bind 127.0.0.1 -::1|' \
    -e 's|^#*dir .*|dir /var/lib/aeris|' \
    -e 's|^supervised .*|supervised systemd|' \
    -e 's|^unixsocket .*|unixsocket /run/aeris/aeris.sock|' \
    -e 's|^unixsocketperm .*|unixsocketperm 770|' \
    -e 's|^aclfile .*|aclfile /var/lib/aeris/users.acl|' \
    "$project/redis.conf" > "$root/etc/aeris/redis.conf"
{
    echo
    echo "# Files of other packages and of this machine, in the order of their names; they override what is above."
    echo "include /etc/aeris/conf.d/*.conf"
} >> "$root/etc/aeris/redis.conf"
chmod 640 "$root/etc/aeris/redis.conf"

complete() {
    mkdir -p "$root/$2"
    "$programs/aeris-server" --completion "$1" > "$root/$2/$3"
}
complete bash usr/share/bash-completion/completions aeris-server
complete zsh usr/share/zsh/vendor-completions _aeris-server
complete fish usr/share/fish/vendor_completions.d aeris-server.fish

man="$root/usr/share/man"
mkdir -p "$man/man1" "$man/man5"
for program in aeris-server aeris-check-rdb aeris-check-aof; do
    "$here/man_page.sh" "$programs/$program" "$version" | gzip -9n > "$man/man1/$program.1.gz"
done
"$here/man_settings.sh" "$project/redis.conf" "$version" | gzip -9n > "$man/man5/aeris.conf.5.gz"
