"""Instructions for each request, counted by callgrind.

A machine that is shared has no steady clock, but it executes the same instructions.
Each row is two runs of a server, one with more requests than the other:

    instructions(start + fill + few requests + end)    = a
    instructions(start + fill + many requests + end)   = b        (b - a) / (many - few)

One connection sends batches of 64, so a turn's fixed cost is divided by 64. The cron is
paused (DEBUG PAUSE-CRON), since it runs by the clock. What remains is the random seed of
the hash tables: two counts of the same binary differ by less than 1 %.
"""

import argparse
import contextlib
import dataclasses
import fnmatch
import os
import re
import shutil
import signal
import subprocess
import time

from .cli import find_load
from .servers import Server, ServerError, free_port, parse_spec

PIPELINE = 64
KEYS = 10_000
FEW = 64_000
STOP_SECONDS = 120
DESCRIPTION = """Count the instructions that servers execute for each request.

  instructions --server old=./aeris-before --server new=target/release/aeris-server
  instructions --server new=target/release/aeris-server --only 'SET*'
"""
BASE = ("--port", "{port}", "--bind", "127.0.0.1", "--save", "", "--daemonize", "no",
        "--enable-debug-command", "yes")
AOF = ("--appendonly", "yes", "--appendfsync", "no", "--auto-aof-rewrite-percentage", "0")


@dataclasses.dataclass(frozen=True)
class Row:
    """What is sent, to a server with these arguments, after these commands. The data set is
    `fill`, with numbers of twice the keyspace. A row of the cluster has a node with all slots."""
    name: str
    command: tuple
    arguments: tuple = ()
    before: tuple = ()
    fill: tuple = ("SET", "key:{seq}", "0123456789abcdef")

    @property
    def cluster(self):
        return "--cluster-enabled" in self.arguments


SET = ("SET", "key:{key}", "0123456789abcdef")
CLUSTER = ("--cluster-enabled", "yes")
SLOT_STATS = (*CLUSTER, "--cluster-slot-stats-enabled", "yes")
ONE_SLOT = ("SET", "{tag}:{seq}", "0123456789abcdef")
STREAM = (("DEBUG", "REPL-BACKLOG", "1"),)
SESSION = (("TRACE", "START"),)
RECORDER = ("--trace-recorder", "yes")
GET, INCR = ("GET", "key:{key}"), ("INCR", "counter:{key}")
ROWS = (
    Row("GET", GET),
    Row("SET", SET),
    Row("INCR", INCR),
    Row("LPUSH", ("LPUSH", "list", "0123456789abcdef")),
    Row("HSET", ("HSET", "hash", "field:{key}", "0123456789abcdef")),
    Row("ZADD", ("ZADD", "zset", "{key}", "member:{key}")),
    Row("HSET, new, 3 fields", ("HSET", "h:{seq}", "f1", "value1", "f2", "value2", "f3", "value3")),
    Row("RPUSH, new, 3 elements", ("RPUSH", "l:{seq}", "value1", "value2", "value3")),
    Row("SADD, new, 3 members", ("SADD", "s:{seq}", "value1", "value2", "value3")),
    Row("SADD, new, 3 integers", ("SADD", "i:{seq}", "1", "20", "300")),
    Row("ZADD, new, 3 members", ("ZADD", "z:{seq}", "1", "value1", "2", "value2", "3", "value3")),
    Row("HSET, small", ("HSET", "h:{key}", "field", "0123456789abcdef")),
    Row("LPUSH, small", ("LPUSH", "l:{key}", "value1")),
    Row("SADD, small", ("SADD", "s:{key}", "{key}")),
    Row("ZADD, small", ("ZADD", "z:{key}", "{key}", "member")),
    Row("HGET, small", ("HGET", "h", "field"), (), (("HSET", "h", "field", "0123456789abcdef"),)),
    Row("SET, AOF", SET, AOF),
    Row("SET, backlog", SET, (), STREAM),
    Row("SET, AOF and backlog", SET, AOF, STREAM),
    Row("GET, trace", GET, (), SESSION),
    Row("SET, trace", SET, (), SESSION),
    Row("INCR, trace", INCR, (), SESSION),
    Row("GET, recorder", GET, RECORDER),
    Row("SET, recorder", SET, RECORDER),
    Row("INCR, recorder", INCR, RECORDER),
    Row("GET, cluster", GET, CLUSTER),
    Row("SET, cluster", SET, CLUSTER),
    Row("GET, slot stats", GET, SLOT_STATS),
    Row("SET, slot stats", SET, SLOT_STATS),
    Row("GET, tagged keys", ("GET", "{tag}:{key}"), (), (), ONE_SLOT),
    Row("GET, cluster, one slot", ("GET", "{tag}:{key}"), CLUSTER, (), ONE_SLOT),
    Row("SET, tagged keys", ("SET", "{tag}:{key}", "0123456789abcdef"), (), (), ONE_SLOT),
    Row("SET, cluster, one slot", ("SET", "{tag}:{key}", "0123456789abcdef"), CLUSTER, (), ONE_SLOT),
)


def collected(log):
    """The count in callgrind's last words."""
    found = re.findall(r"Collected : (\d+)", log)
    if not found:
        raise ServerError("callgrind has counted nothing: " + log[-300:])
    return int(found[-1])


def per_request(few, many, requests):
    """Instructions for each of the `requests` that the second run had more."""
    return (many - few) / requests


def load(program, port, requests, command, keyspace=KEYS):
    done = subprocess.run(
        [program, "--port", str(port), "--clients", "1", "--pipeline", str(PIPELINE),
         "--keyspace", str(keyspace), "--requests", str(requests), *command],
        capture_output=True, text=True)
    if done.returncode != 0:
        raise ServerError(done.stderr.strip())


@contextlib.contextmanager
def under_callgrind(name, command, arguments):
    """A server whose instructions are counted, in a folder of its own."""
    callgrind = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"]
    if "--cluster-enabled" in arguments:
        # The default may be above the highest port.
        arguments += ("--cluster-port", str(free_port()))
    server = Server(name, callgrind + command + list(BASE + arguments), None)
    server.command += ["--dir", server.dir]
    try:
        server.start()
        yield server
    finally:
        if server.proc is not None and server.proc.poll() is None:
            server.proc.kill()
            server.proc.wait()
        shutil.rmtree(server.dir, ignore_errors=True)


def serve_all_slots(server):
    """Makes the server a cluster of one node."""
    server.ask("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
    deadline = time.monotonic() + STOP_SECONDS
    while "cluster_state:ok" not in str(server.ask("CLUSTER", "INFO")):
        if time.monotonic() > deadline:
            raise ServerError("the cluster of one node is not up")
        time.sleep(0.1)


def count(name, command, row, requests, program):
    """All instructions of one run."""
    with under_callgrind(name, command, row.arguments) as server:
        if row.cluster:
            serve_all_slots(server)
        server.ask("DEBUG", "PAUSE-CRON", "1")
        load(program, server.port, 2 * KEYS, row.fill)
        for words in row.before:
            server.ask(*words)
        load(program, server.port, requests, row.command)
        server.ask("DEBUG", "PAUSE-CRON", "0")       # which looks at signals
        server.proc.send_signal(signal.SIGTERM)
        server.proc.wait(STOP_SECONDS)
        with open(os.path.join(server.dir, "log"), errors="replace") as f:
            return collected(f.read())


def measure(name, command, row, requests, program):
    few = count(name, command, row, FEW, program)
    many = count(name, command, row, FEW + requests, program)
    return per_request(few, many, requests)


def parse_arguments(argv):
    p = argparse.ArgumentParser(description=DESCRIPTION,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--server", action="append", required=True, metavar="NAME=PATH[ ARGS]",
                   help="a server; the others are compared with the first")
    p.add_argument("--only", action="append", default=[], metavar="GLOB", help="rows by name")
    p.add_argument("--requests", type=int, default=256_000,
                   help="that make the difference (%(default)s)")
    p.add_argument("--load", metavar="BIN", default=find_load(),
                   help="the load generator (default: the one built last)")
    o = p.parse_args(argv)
    if not o.load:
        p.error("no load generator: cargo build --release -p bench-load")
    if shutil.which("valgrind") is None:
        p.error("valgrind is not installed")
    return o


def main(argv=None):
    o = parse_arguments(argv)
    specs = [parse_spec(text) for text in o.server]
    print(f"{'instructions per request':26}" + "".join(f"{name:>16}" for name, _ in specs))
    for row in ROWS:
        if o.only and not any(fnmatch.fnmatchcase(row.name, glob) for glob in o.only):
            continue
        line, first = f"{row.name:26}", None
        for name, command in specs:
            try:
                figure = measure(name, command, row, o.requests, o.load)
            except ServerError as e:
                print(f"    ({name}: {e})")
                line += f"{'-':>16}"
                continue
            change = f" {100 * (figure / first - 1):+.1f}%" if first else ""
            first = first or figure
            line += f"{f'{figure:.1f}{change}':>16}"
        print(line, flush=True)
    return 0
