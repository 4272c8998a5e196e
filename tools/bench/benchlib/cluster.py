"""What a cluster costs, and how fast it fails over and moves slots, beside the real servers.

    cost       CPU for each GET and SET of one node with all slots; of the same server without a
               cluster, in turns; used_memory of both when empty
    failover   three primaries and a replica; a primary is killed; until its replica takes a write
    move       half of one node's slots go to another by CLUSTER MIGRATESLOTS, under a write to the
               moving slots each millisecond; the longest time without an accepted write is the pause

The servers take turns, since the machine is shared: compare figures of one run only.
"""

import argparse
import contextlib
import os
import shutil
import signal
import statistics
import time

from . import measure
from .cli import find_load
from .measure import Client
from .servers import Resp, Server, ServerError, free_port, parse_spec
from .workloads import STRINGS, VALUE, Workload, words

SLOTS = 16384
TIMEOUT_MS = 2000
WAIT_SECONDS = 120
MOVE_SECONDS = 1800
VALUE_BYTES = 1024
SETTINGS = ("--cluster-enabled", "yes", "--cluster-node-timeout", str(TIMEOUT_MS),
            "--repl-diskless-sync-delay", "0")
WORKLOADS = (
    Workload("GET P64", 64, words("GET key:{key}"), STRINGS),
    Workload("SET P64", 64, words(f"SET key:{{key}} {VALUE}"), STRINGS),
)
DESCRIPTION = """Measure servers as nodes of clusters.

  cluster --server aeris=target/release/aeris-server --peers
  cluster --server aeris=target/release/aeris-server --peers --only failover --runs 10
  cluster --server aeris=target/release/aeris-server --peers --only move --megabytes 2048
"""


def wait_until(what, condition, seconds=WAIT_SECONDS, pause=0.02):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise ServerError(f"no {what} in {seconds} s")
        time.sleep(pause)


def info(server, section):
    text = server.ask("CLUSTER", "INFO") if section == "cluster" else server.ask("INFO", section)
    return dict(line.split(":", 1) for line in text.decode().splitlines() if ":" in line)


def node(spec, core=None, extra=()):
    """A node that runs, alone; its bus port is in `bus`."""
    name, command = spec
    server = Server(name, command, core)
    server.bus = free_port()
    server.command = [*command, "--port", "{port}", "--dir", server.dir, "--save", "",
                      "--bind", "127.0.0.1", "--daemonize", "no", *extra]
    if extra:
        server.command += ["--cluster-port", str(server.bus)]
    server.start()
    return server


@contextlib.contextmanager
def cluster(spec, primaries, replicas=0):
    """Nodes of a cluster whose primaries have equal parts of the slots. Replica `n` follows
    primary `n`."""
    nodes = []
    try:
        for _ in range(primaries + replicas):
            nodes.append(node(spec, None, SETTINGS))
        for at, one in enumerate(nodes):
            one.ask("CLUSTER", "SET-CONFIG-EPOCH", str(at + 1))
            if at < primaries:
                first, end = at * SLOTS // primaries, (at + 1) * SLOTS // primaries
                one.ask("CLUSTER", "ADDSLOTSRANGE", str(first), str(end - 1))
        for other in nodes[1:]:
            nodes[0].ask("CLUSTER", "MEET", "127.0.0.1", str(other.port), str(other.bus))
        count = str(len(nodes))

        def is_joined(one):
            state = info(one, "cluster")
            return state["cluster_state"] == "ok" and state["cluster_known_nodes"] == count
        wait_until("cluster", lambda: all(map(is_joined, nodes)))
        for at in range(replicas):
            nodes[primaries + at].ask("CLUSTER", "REPLICATE", nodes[at].ask("CLUSTER", "MYID"))
        followers = nodes[primaries:]
        wait_until("replica", lambda: all(
            info(one, "replication").get("master_link_status") == "up" for one in followers))
        yield nodes
    finally:
        for one in nodes:
            one.stop()
            shutil.rmtree(one.dir, ignore_errors=True)


def key_of(server, first, last):
    """A key in one of these slots."""
    return next(name for name in map("key:{}".format, range(100_000))
                if first <= server.ask("CLUSTER", "KEYSLOT", name) <= last)


def fail_over(spec):
    """Seconds from the death of a primary until its replica takes a write."""
    with cluster(spec, 3, 1) as nodes:
        replica = nodes[3]
        key = key_of(nodes[0], 0, SLOTS // 3 - 1)
        nodes[0].ask("SET", key, "before")
        id_ = replica.ask("CLUSTER", "MYID")
        # All voters know the replica, and it has an offset.
        wait_until("replica in all views", lambda: all(
            any(id_ in line and b"slave" in line for line in one.ask("CLUSTER", "NODES").split(b"\n"))
            for one in nodes))
        time.sleep(TIMEOUT_MS / 1000)
        with Resp(replica.port) as c:
            nodes[0].proc.send_signal(signal.SIGKILL)
            nodes[0].proc.wait()
            began = time.monotonic()

            def is_taken():
                try:
                    return c.ask("SET", key, "after") == b"OK"
                except ServerError:
                    return False
            wait_until("failover", is_taken, pause=0.005)
            return time.monotonic() - began


def move(spec, megabytes):
    """Seconds that half of the slots take to move, and the longest pause of writes to them."""
    with cluster(spec, 2) as nodes:
        source, target = nodes
        fill(source, megabytes * 1024 * 1024 // VALUE_BYTES)
        probe = key_of(source, 0, SLOTS // 2 - 1)
        name = target.ask("CLUSTER", "MYID")
        with Resp(source.port) as a, Resp(target.port) as b, Resp(source.port) as control:
            writer = Writer(a, b, probe)
            began = time.monotonic()
            control.ask("CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", "0", str(SLOTS // 2 - 1),
                        "NODE", name)
            while not writer.moved:
                if time.monotonic() - began > MOVE_SECONDS:
                    raise ServerError("the slots did not move")
                writer.write()
                time.sleep(0.001)
            return time.monotonic() - began, writer.pause


def fill(source, count):
    """Values for slots of the source's half, in pipelines."""
    with Resp(source.port) as c:
        value = os.urandom(VALUE_BYTES // 2).hex().encode()
        tags = [f"t{at}" for at in range(3000)
                if c.ask("CLUSTER", "KEYSLOT", f"t{at}") < SLOTS // 2]
        for begin in range(0, count, 100):
            batch = range(begin, min(begin + 100, count))
            request = b""
            for at in batch:
                key = f"{{{tags[at % len(tags)]}}}:{at}".encode()
                request += b"*3\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n" % (
                    len(key), key, len(value), value)
            c.sock.sendall(request)
            for _ in batch:
                c.reply()


class Writer:
    """A client that writes one key, and follows it to the target."""

    def __init__(self, source, target, key):
        self.source, self.target, self.key = source, target, key
        self.moved, self.pause = False, 0.0
        self.accepted = time.monotonic()

    def write(self):
        for there, c in ((False, self.source), (True, self.target)):
            try:
                c.ask("SET", self.key, VALUE)
            except ServerError:
                continue
            now = time.monotonic()
            self.pause, self.accepted = max(self.pause, now - self.accepted), now
            self.moved = there
            return


def cost(specs, o):
    """Rows of CPU for each request, and of memory."""
    cores = measure.cores()
    client = Client(o.load, cores[1], o.clients)
    servers = []
    try:
        for name, command in specs:
            servers.append(node((name, command), cores[0]))
            joined = node((f"{name}, cluster", command), cores[0], SETTINGS)
            servers.append(joined)
            joined.ask("CLUSTER", "ADDSLOTSRANGE", "0", str(SLOTS - 1))
            wait_until("cluster", lambda: info(joined, "cluster")["cluster_state"] == "ok")
        for one in servers:
            print(f"{one.name}: used_memory {one.used_memory()}, RSS {one.rss()}, empty")
        for workload in WORKLOADS:
            found = measure.measure(servers, workload, client, o.turns, o.seconds, lambda _: None)
            for alone, joined in zip(servers[::2], servers[1::2]):
                pair = [found[alone.name], found[joined.name]]
                if any(isinstance(turns, str) for turns in pair):
                    print(f"{workload.name} {alone.name}: {pair}")
                    continue
                a, b = map(measure.median, pair)
                more = 100 * (measure.ratio(pair[1], pair[0]) - 1)
                print(f"{workload.name} {alone.name}: {a:.3f} us alone, {b:.3f} us in a cluster"
                      f" ({more:+.1f} %)", flush=True)
        for one in servers:
            print(f"{one.name}: used_memory {one.used_memory()}, with the keys")
    finally:
        for one in servers:
            one.stop()
            shutil.rmtree(one.dir, ignore_errors=True)


def failovers(specs, o):
    times = {name: [] for name, _ in specs}
    for _ in range(o.runs):
        for spec in specs:
            times[spec[0]].append(1000 * fail_over(spec))
    for name, found in times.items():
        print(f"failover {name}: median {statistics.median(found):.0f} ms of "
              + " ".join(f"{ms:.0f}" for ms in found), flush=True)


def moves(specs, o):
    for _ in range(o.moves):
        for spec in specs:
            try:
                seconds, pause = move(spec, o.megabytes)
            except ServerError as e:
                print(f"move {spec[0]}: {e}")
                continue
            print(f"move {spec[0]}: {o.megabytes} MB in {seconds:.2f} s, writes paused for "
                  f"{1000 * pause:.1f} ms", flush=True)


PARTS = {"cost": cost, "failover": failovers, "move": moves}


def main(argv=None):
    p = argparse.ArgumentParser(description=DESCRIPTION,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--server", action="append", default=[], metavar="NAME=PATH[ ARGS]")
    p.add_argument("--peers", action="store_true", help="add Valkey 9.1 and Redis 8.2")
    p.add_argument("--only", action="append", choices=tuple(PARTS), help="parts (default: all)")
    p.add_argument("--runs", type=int, default=3, help="failovers of each (%(default)s)")
    p.add_argument("--moves", type=int, default=1, help="moves of each (%(default)s)")
    p.add_argument("--megabytes", type=int, default=64, help="that move (%(default)s)")
    p.add_argument("--turns", type=int, default=5, help="of each load (%(default)s)")
    p.add_argument("--seconds", type=float, default=1.0, help="of a turn (%(default)s)")
    p.add_argument("--clients", type=int, default=50, help="connections (%(default)s)")
    p.add_argument("--load", metavar="BIN", default=find_load(),
                   help="the load generator (default: the one built last)")
    o = p.parse_args(argv)
    specs = [parse_spec(text) for text in o.server]
    if o.peers:
        names = ("valkey-server-9.1", "redis-server-8.2")
        specs += [(name, [shutil.which(name)]) for name in names if shutil.which(name)]
    if not specs:
        p.error("no --server is given")
    if not o.load and "cost" in (o.only or PARTS):
        p.error("no load generator: cargo build --release -p bench-load")
    for part in o.only or PARTS:
        PARTS[part](specs, o)
    return 0
