"""What persistence costs the clients: throughput, and stalls.

A scene is measured plain and disturbed, the servers taking turns, and reported as
the ratio of the two within a turn: how much slower a server is with its own AOF, or
while its own child saves. The load lasts from the child's fork to its end, however
long that is.

    for each turn:   A plain, A disturbed, B plain, B disturbed, ...

The servers are not held on one core here: a child that saves would share it.
"""

import contextlib
import dataclasses
import os
import re
import statistics
import subprocess
import sys
import time

from .measure import prepare, turn
from .servers import ServerError
from .workloads import STRINGS, VALUE, Workload, fill, words

HEADING = "plain / disturbed"
REWRITE_SECONDS = 120
MANY = 5_000_000             # keys, where a fork has to hurt

# Another process that keeps the disk busy, in the folder that it is given. It should use
# nothing else: it waits for each write (O_SYNC), past the page cache where it can, and has
# the lowest priority on the cores.
BUSY = """
import mmap, os, sys
os.nice(19)
flags = os.O_WRONLY | os.O_CREAT | os.O_SYNC
path = os.path.join(sys.argv[1], "busy")
try:
    fd = os.open(path, flags | os.O_DIRECT)
except OSError:
    fd = os.open(path, flags)
block = mmap.mmap(-1, 4 << 20)
block.write(os.urandom(len(block)))
while True:
    for at in range(16):
        os.pwrite(fd, block, at * len(block))
"""


@dataclasses.dataclass(frozen=True)
class Scene:
    workload: Workload
    field: str                   # what is compared, of a turn's result
    plain: object                # context managers of (server, client); what they give
    disturbed: object            # is done meanwhile, and the load lasts as long
    limit: float                 # the ratio that is promised
    scale: float = 1.0           # of the field to what is shown

    @property
    def name(self):
        return self.workload.name


@contextlib.contextmanager
def nothing(_server, _client):
    yield


def persistence(server):
    """INFO persistence as a dictionary."""
    text = server.ask("INFO", "persistence").decode()
    return dict(re.findall(r"^(\w+):(.*?)\r?$", text, re.M))


def wait_for_child(server):
    deadline = time.monotonic() + REWRITE_SECONDS
    while time.monotonic() < deadline:
        info = persistence(server)
        if all(info[name] == "0" for name in ("aof_rewrite_in_progress", "aof_rewrite_scheduled",
                                              "rdb_bgsave_in_progress")):
            return
        time.sleep(0.05)
    raise ServerError("a child does not end")


def log(policy):
    """The append only file is on, and no rewrite begins."""
    @contextlib.contextmanager
    def scene(server, _client):
        server.ask("CONFIG", "SET", "auto-aof-rewrite-percentage", "0")
        server.ask("CONFIG", "SET", "appendfsync", policy)
        server.ask("CONFIG", "SET", "appendonly", "yes")
        wait_for_child(server)
        try:
            yield
        finally:
            server.ask("CONFIG", "SET", "appendonly", "no")
    return scene


@contextlib.contextmanager
def saving(server, _client):
    """A child saves, once."""
    def save():
        time.sleep(0.05)
        server.ask("BGSAVE")
        wait_for_child(server)
    yield save


@contextlib.contextmanager
def writer(server, client):
    """A few connections write all the time."""
    options, command = client.command(
        server, words(f"SET key:{{key}} {VALUE}"), seconds=3600)
    options += ["--clients", "4"]
    proc = subprocess.Popen([*options, *command], stdout=subprocess.DEVNULL,
                            stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        proc.kill()
        proc.wait()


@contextlib.contextmanager
def busy_disk(server):
    proc = subprocess.Popen([sys.executable, "-c", BUSY, server.dir])
    try:
        time.sleep(0.5)
        yield
    finally:
        proc.kill()
        proc.wait()
        os.unlink(os.path.join(server.dir, "busy"))


def logging(policy, busy):
    """Others write and the log follows `policy`; the disk has nothing else to do, or very much."""
    @contextlib.contextmanager
    def scene(server, client):
        with log(policy)(server, client), writer(server, client):
            with busy_disk(server) if busy else contextlib.nullcontext():
                yield
    return scene


def scenes(many=MANY):
    get = words("GET key:{key}")
    some = (fill(many, f"SET key:{{seq}} {VALUE}"),)
    return (
        Scene(Workload("SET P64, AOF everysec", 64, words(f"SET key:{{key}} {VALUE}"), STRINGS),
              "wall_us", nothing, log("everysec"), 1.15),
        Scene(Workload("GET p99 ms, saving", 1, get, some, keyspace=many),
              "p99_us", nothing, saving, 2.0, 1000.0),
        *(Scene(Workload(f"GET p99 ms, busy disk, {policy}", 1, get, STRINGS),
                "p99_us", logging(policy, False), logging(policy, True), 1.5, 1000.0)
          for policy in ("everysec", "always")),
    )


def measure(servers, scene, client, turns, seconds, note, alternates=False):
    """By server's name: a list of (plain, disturbed), or an error. If `alternates`, every second
    turn begins with the disturbed side."""
    results = {}
    for server in servers:
        try:
            prepare(server, scene.workload, client)
            results[server.name] = []
        except (ServerError, OSError) as e:
            results[server.name] = str(e)
    for number in range(turns):
        for server in servers:
            if isinstance(results[server.name], str):
                continue
            try:
                sides = [scene.plain, scene.disturbed]
                swapped = alternates and number % 2 == 1
                pair = []
                for around in reversed(sides) if swapped else sides:
                    with around(server, client) as during:
                        result = turn(server, scene.workload, client,
                                      REWRITE_SECONDS if during else seconds, number + 1, during)
                    pair.append(result[scene.field] / scene.scale)
                results[server.name].append(tuple(reversed(pair) if swapped else pair))
            except (ServerError, OSError, KeyError) as e:
                results[server.name] = str(e) or repr(e)
        note(f"{scene.name}: turn {number + 1} of {turns}")
    return results


def ratio(pairs):
    return statistics.median(disturbed / plain for plain, disturbed in pairs)
