"""What the trace costs while it is on: CPU for each request, as a ratio to the same server without.

A machine that is shared is slow for a while and fast for a while, so a turn is divided into
many short slices, without and with the trace in pairs whose order alternates:

    off on, on off, off on, ...        the median of all ratios on / off

Everything is one server with one data set; TRACE START and `trace-recorder` do not move it.
"""

import contextlib

from . import disk
from .disk import Scene, nothing
from .workloads import VALUE, Workload, fill, words

HEADING = "CPU, us: trace off / on"
LIMIT = 1.03                 # of CPU for each request
PAIRS = 10                   # in a turn of each server
KEYS = 100_000               # few, so that commands are cheap


@contextlib.contextmanager
def session(server, _client):
    server.ask("TRACE", "START")
    try:
        yield
    finally:
        server.ask("TRACE", "STOP")


@contextlib.contextmanager
def recorder(server, _client):
    server.ask("CONFIG", "SET", "trace-recorder", "yes")
    try:
        yield
    finally:
        server.ask("CONFIG", "SET", "trace-recorder", "no")


STRINGS = (fill(KEYS, f"SET key:{{seq}} {VALUE}"),)
COMMANDS = (
    ("GET", words("GET key:{key}"), STRINGS),
    ("SET", words(f"SET key:{{key}} {VALUE}"), STRINGS),
    ("INCR", words("INCR cnt:{key}"), (fill(KEYS, "SET cnt:{seq} 0"),)),
)


def scenes():
    return tuple(
        Scene(Workload(f"{name} P64, {what}", 64, command, data, keyspace=KEYS), "cpu_us",
              nothing, recording, LIMIT)
        for what, recording in (("session", session), ("recorder", recorder))
        for name, command, data in COMMANDS)


def measure(servers, scene, client, turns, seconds, note):
    """By server's name: a list of (off, on), or an error."""
    return disk.measure(servers, scene, client, turns * PAIRS, seconds / PAIRS, note, True)
