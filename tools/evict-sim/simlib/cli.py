"""Hit ratios of eviction: traces through servers under the same maxmemory, and through exact caches.

    tools/evict-sim/evict-sim --server aeris=target/release/aeris-server --peers
    tools/evict-sim/evict-sim --server aeris=... --trace zipf --trace requests.csv --svg hits.svg

The made-up traces are zipf, scan, shifting and loop (simlib/traces.py); another name is a file of lines
`key,size`. The column `exact` is LRU or LFU without approximation; its capacity is the sum of the values
that the first server held at the end, so it compares policies, not overheads. The exit code is 1 if the
first server has a lower ratio than another one, or under LRU less than the exact cache by more than 0.01.
"""

import argparse
import os
import shutil
import sys

from benchlib.servers import parse_spec

from . import caches, replay, report, traces

PEERS = ["redis-server", "redis-server-8.2", "valkey-server", "valkey-server-9.1"]
NAMES = {"redis-server": "redis-7.0", "redis-server-8.2": "redis-8.2",
         "valkey-server": "valkey-8.0", "valkey-server-9.1": "valkey-9.1"}
PEERS_DIR = os.path.join(os.path.dirname(__file__), *[os.pardir] * 3, "tests", ".peers", "bin")


def peers():
    """The real servers that tools/peers.sh has unpacked, or that are installed."""
    path = os.path.normpath(PEERS_DIR) + os.pathsep + os.environ["PATH"]
    found = ((NAMES[name], shutil.which(name, path=path)) for name in PEERS)
    return [(name, [program]) for name, program in found if program]


def arguments(argv):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", action="append", default=[], help="name=program; the first is ours")
    parser.add_argument("--peers", action="store_true", help="the real servers, too")
    parser.add_argument("--trace", action="append", help="made-up trace or CSV file; all made-up ones")
    parser.add_argument("--policy", action="append", help="allkeys-lru, allkeys-lfu, ...; these two")
    parser.add_argument("--maxmemory", type=int, default=16 << 20, help="bytes (16 MiB)")
    parser.add_argument("--keys", type=int, default=100_000, help="of made-up traces (100,000)")
    parser.add_argument("--requests", type=int, default=400_000, help="of made-up traces (400,000)")
    parser.add_argument("--seconds", type=float, default=0, help="the time that a replay lasts at least")
    parser.add_argument("--svg", help="a file for the chart")
    return parser.parse_args(argv)


def trace_of(name, options):
    if name in traces.MADE:
        return traces.make(name, options.keys, options.requests)
    with open(name, newline="") as lines:
        return traces.read_csv(lines)


def compare(trace, policy, servers, options):
    """The hit ratio of each server, and of the exact cache."""
    ratios, capacity, warm = {}, None, len(trace) // 3
    for spec in servers:
        ratio, resident = replay.through_server(
            spec, policy, options.maxmemory, trace, warm, options.seconds)
        ratios[spec[0]] = ratio
        capacity = capacity or resident
    exact = caches.Lfu if policy.endswith("lfu") else caches.Lru
    ratios["exact"] = caches.hit_ratio(exact(capacity), trace, warm, replay.BATCH)
    return ratios


def main(argv=None):
    options = arguments(argv)
    servers = [parse_spec(text) for text in options.server] + (peers() if options.peers else [])
    if not servers:
        sys.exit("no --server")
    rows = []
    for name in options.trace or traces.MADE:
        trace = trace_of(name, options)
        for policy in options.policy or ["allkeys-lru", "allkeys-lfu"]:
            ratios = compare(trace, policy, servers, options)
            rows.append((os.path.basename(name), policy, ratios))
            print(rows[-1], file=sys.stderr)
    names = [name for name, _ in servers] + ["exact"]
    print(report.table(rows, names))
    if options.svg:
        with open(options.svg, "w") as file:
            file.write(report.svg(rows, names))
    missed = report.behind(rows, servers[0][0])
    for line in missed:
        print("behind:", line)
    return 1 if missed else 0
