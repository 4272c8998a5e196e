#!/bin/sh
# A man page in section 1 from what a program prints on --help.
#
#     tools/package/man_page.sh PROGRAM VERSION
set -eu
program=$1 name=$(basename "$1") version=$2
case $name in
aeris-server) summary="Redis-compatible server" ;;
aeris-check-rdb) summary="checks a snapshot (RDB)" ;;
aeris-check-aof) summary="checks an append-only file (AOF)" ;;
*) summary="a program of aeris" ;;
esac
# The server prints its help on standard error, with status 1, as redis-server does.
help=$("$program" --help 2>&1) || [ "$name" = aeris-server ] || {
    echo "man_page: $name --help fails: $help" >&2
    exit 1
}
literal() { sed -e 's/\\/\\e/g' -e "s/^[.']/\\\\\\&&/" -e 's/-/\\-/g'; }
cat <<HEAD
.TH $(echo "$name" | tr '[:lower:]' '[:upper:]') 1 "" "aeris $version"
.SH NAME
$(echo "$name" | literal) \- $summary
.SH SYNOPSIS
.nf
HEAD
printf '%s\n' "$help" | grep -v '^aeris ' | literal
cat <<TAIL
.fi
.SH FILES
/etc/aeris/redis.conf, /etc/aeris/conf.d/*.conf, /var/lib/aeris
.SH SEE ALSO
.BR aeris.conf (5),
.BR aeris\-server (1),
.BR aeris\-check\-rdb (1),
.BR aeris\-check\-aof (1),
.BR redis\-cli (1)
TAIL
