#!/bin/bash
# make deb-test: the package in a root of its own, made by debootstrap: installed, started, stopped,
# upgraded, removed, purged; then clients of Debian beside it, and the settings and the unit of
# Debian's redis-server with our program. Needs root, a mirror of Debian, and the network only for
# that mirror.
#
#     tools/package/test_deb.sh TARGET_DIR
#
# No systemd runs in such a root, so the script does what the unit says: its user, its ExecStartPre
# and its ExecStart, with a socket for its messages. The root is unpacked once into
# TARGET_DIR/deb-root.tar and used again.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
project=$(cd "$here/../.." && pwd)
programs=$1
# The clients that must work unchanged.
CLIENTS=redis-tools,python3-redis,prometheus-redis-exporter
work=$(mktemp -d)
root=$work/root
server=
finish() {
    [ -z "$server" ] || kill "$server" 2>/dev/null || true
    for point in dev proc; do ! mountpoint -q "$root/$point" || umount "$root/$point"; done
    rm -rf "$work"
}
trap finish EXIT
say() { echo "deb-test: $*"; }
fail() { echo "deb-test: FAILED: $*" >&2; exit 1; }
inside() { chroot "$root" env PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive "$@"; }

. "$project/tools/private_apt.sh"

make_root() {
    local tar=$programs/deb-root.tar script=debootstrap scripts
    if [ ! -e "$tar" ]; then
        if ! command -v debootstrap >/dev/null; then
            apt=$work/apt
            private_sources deb bookworm
            (cd "$work" && private_apt download debootstrap)
            dpkg-deb -x "$work"/debootstrap_*.deb "$work/debootstrap"
            scripts=$work/debootstrap/usr/share/debootstrap
            script="env DEBOOTSTRAP_DIR=$scripts sh $work/debootstrap/usr/sbin/debootstrap"
        fi
        $script --variant=minbase --include="systemd,$CLIENTS" bookworm "$root" "$(debian_mirror)" >"$work/log" 2>&1 ||
            { tail -n 20 "$work/log"; fail "debootstrap"; }
        # The servers of the clients' packages must not start by themselves.
        tar -C "$root" --exclude=./proc/* --exclude=./dev/* -cf "$tar.new" .
        mv "$tar.new" "$tar"
    else
        mkdir -p "$root"
        tar -C "$root" -xf "$tar"
    fi
    # A minimal root has no names of hosts.
    echo "127.0.0.1 localhost" > "$root/etc/hosts"
    mount -t proc proc "$root/proc"
    mount --bind /dev "$root/dev"
}

# start: as the unit does.
start() {
    inside install -d -o aeris -g aeris /run/aeris
    inside setpriv --reuid=aeris --regid=aeris --clear-groups /usr/bin/aeris-server --init-acl /var/lib/aeris/users.acl
    # Without a shell between, so that the process id is the server's.
    chroot --userspec=aeris:aeris "$root" \
        /usr/bin/aeris-server /etc/aeris/redis.conf --supervised systemd --daemonize no --port "$port" >"$work/server.log" 2>&1 &
    server=$!
    for _ in $(seq 300); do
        ! grep -q "Ready to accept connections tcp" "$work/server.log" || return 0
        kill -0 "$server" 2>/dev/null || break
        sleep 0.1
    done
    cat "$work/server.log"
    fail "the server does not start"
}

stop() {
    kill "$server"
    wait "$server" || fail "status $? at the end"
    server=
}

cli() { inside env REDISCLI_AUTH="$password" redis-cli -p "$port" "$@"; }
same() { [ "$2" = "$3" ] || fail "$1: '$2' instead of '$3'"; }

port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
make_root
say "root is ready"

"$here/build_deb.sh" "$programs/debug" "$work/one" 0.1.0 >/dev/null
"$here/build_deb.sh" "$programs/debug" "$work/two" 0.1.1 >/dev/null
cp "$work"/one/*.deb "$work"/two/*.deb "$root/tmp/"
inside sh -c 'dpkg -i /tmp/aeris_0.1.0_*.deb' >"$work/log" 2>&1 || { cat "$work/log"; fail "install"; }
inside getent passwd aeris >/dev/null || fail "no user"
same "owner of the settings" "$(inside stat -c %U:%G:%a /etc/aeris/redis.conf)" aeris:aeris:640
say "installed"

echo "maxmemory 100mb" > "$root/etc/aeris/conf.d/memory.conf"
start
password=$(cat "$root/var/lib/aeris/users.acl.password")
same "mode of the password" "$(stat -c %a "$root/var/lib/aeris/users.acl.password")" 600
same "without a password" "$(inside redis-cli -p "$port" ping)" "NOAUTH Authentication required."
same PING "$(cli ping)" PONG
same "conf.d" "$(cli config get maxmemory | tail -n 1)" 104857600
same SET "$(cli set key value)" OK
same CONFIG "$(cli config rewrite)" OK
stop
say "started, stopped"

inside sh -c 'dpkg -i /tmp/aeris_0.1.1_*.deb </dev/null' >"$work/log" 2>&1 || { cat "$work/log"; fail "upgrade"; }
start
same "the data after an upgrade" "$(cli get key)" value
same "the users after an upgrade" "$(cat "$root/var/lib/aeris/users.acl.password")" "$password"
say "upgraded"

# clients [PASSWORD]: redis-benchmark, python3-redis and prometheus-redis-exporter against the
# server.
clients() {
    local secret=${1:-}
    inside redis-benchmark -p "$port" ${secret:+-a "$secret"} -t set,get -n 2000 -q >/dev/null 2>&1 || fail redis-benchmark
    inside python3 /tmp/client.py "$port" "$secret" || fail python3-redis
    local exporter exporter_port figures=
    exporter_port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
    chroot "$root" /usr/bin/prometheus-redis-exporter -redis.addr "redis://127.0.0.1:$port" -redis.password "$secret" \
        -web.listen-address "127.0.0.1:$exporter_port" >"$work/exporter.log" 2>&1 &
    exporter=$!
    for _ in $(seq 100); do
        figures=$(python3 -c "import urllib.request; print(urllib.request.urlopen('http://127.0.0.1:$exporter_port/metrics').read().decode())" 2>/dev/null) && break
        sleep 0.1
    done
    kill "$exporter"
    grep -q '^redis_up 1' <<<"$figures" || { tail -n 5 "$work/exporter.log"; fail prometheus-redis-exporter; }
}

cat > "$root/tmp/client.py" <<'PYTHON'
import sys
import redis

client = redis.Redis(port=int(sys.argv[1]), password=sys.argv[2] or None, decode_responses=True)
client.delete("python", "list")
client.set("python", 1)
assert client.incr("python") == 2
with client.pipeline() as pipe:
    assert pipe.rpush("list", "a", "b").lrange("list", 0, -1).execute() == [2, ["a", "b"]]
listener = client.pubsub()
listener.subscribe("channel")
listener.get_message(timeout=10)
client.publish("channel", "message")
assert listener.get_message(timeout=10)["data"] == "message"
assert client.info()["role"] == "master"
PYTHON
clients "$password"
stop
say "redis-cli, redis-benchmark, python3-redis and prometheus-redis-exporter work"

# Debian's own service with our program in the place of redis-server: its settings and its command
# line, unchanged but for the port, which may be in use on this machine.
(
    apt=$work/apt
    private_sources deb bookworm
    cd "$work" && private_apt download redis-server
)
dpkg-deb -x "$work"/redis-server_*.deb "$work/debian"
cp -a "$work/debian/etc/redis" "$root/etc/"
ln -sf aeris-server "$root/usr/bin/redis-server"
inside id redis >/dev/null 2>&1 || inside useradd --system --home-dir /var/lib/redis redis
inside install -d -o redis -g redis /var/lib/redis /var/log/redis /run/redis
inside chown -R redis:redis /etc/redis
command_line=$(sed -n 's/^ExecStart=//p' "$work"/debian/lib/systemd/system/redis-server.service)
# shellcheck disable=SC2086
chroot --userspec=redis:redis "$root" $command_line --port "$port" &
server=$!
for _ in $(seq 300); do
    [ "$(inside redis-cli -p "$port" ping 2>/dev/null)" != PONG ] || break
    kill -0 "$server" 2>/dev/null || { cat "$root/var/log/redis/redis-server.log"; fail "Debian's service does not start"; }
    sleep 0.1
done
same "Debian's settings" "$(inside redis-cli -p "$port" config get dir | tail -n 1)" /var/lib/redis
clients
same "CONFIG REWRITE of Debian's settings" "$(inside redis-cli -p "$port" config rewrite)" OK
stop
[ -s "$root/var/lib/redis/dump.rdb" ] || fail "no data where Debian's settings have it"
say "Debian's redis-server: its settings and its command line start ours, and its clients work"

inside dpkg -r aeris >"$work/log" 2>&1 || { cat "$work/log"; fail remove; }
[ -e "$root/var/lib/aeris/dump.rdb" ] || fail "a removal deletes the data"
inside dpkg -P aeris >"$work/log" 2>&1 || { cat "$work/log"; fail purge; }
for path in /etc/aeris /var/lib/aeris /var/log/aeris /usr/bin/aeris-server; do
    [ ! -e "$root$path" ] || fail "$path is left"
done
say "removed, purged; all passed"
