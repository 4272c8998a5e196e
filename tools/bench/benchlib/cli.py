"""The command line of tools/bench/bench."""

import argparse
import datetime
import fnmatch
import glob
import json
import os
import shutil
import sys

from . import cache, disk, measure, memory, replication, tls, trace
from .chart import svg
from .report import Report
from .servers import Fleet, ServerError, parse_spec
from .workloads import ELEMENTS, KEYS, WORKLOADS

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PROJECT = os.path.dirname(os.path.dirname(HERE))
DESCRIPTION = """Measure servers beside one another: microseconds of CPU for each request, taking
turns on one core, and bytes of memory for each element.

  bench --server aeris=target/release/aeris-server --peers --budget
  bench --server a=./old --server b=./new --only 'SET*' --turns 5
  bench --server 'floor=target/release/examples/10_resp @7010' --only 'PING*'
"""


def target_folder():
    return os.environ.get("CARGO_TARGET_DIR", os.path.join(PROJECT, "target"))


def find_load():
    """The load generator that was built last."""
    built = glob.glob(os.path.join(target_folder(), "*", "bench-load"))
    return max(built, key=os.path.getmtime, default=None)


def parse_arguments(argv):
    p = argparse.ArgumentParser(
        description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Exit status: 0, 1 when a budget is missed (--budget), 2 for bad usage.")
    p.add_argument("--server", action="append", default=[], metavar="NAME=PATH[ ARGS]",
                   help="a server; the first is the subject. With {port} among its "
                        "arguments, or @N (its fixed port) as the last, it gets no others")
    p.add_argument("--peers", action="store_true",
                   help="add redis-server 7.0 and valkey-server 8.0 (tools/peers.sh)")
    p.add_argument("--only", action="append", default=[], metavar="GLOB",
                   help="workloads and data sets by name ('*P64', 'memory' for all data sets, "
                        "'cpu' for all workloads, 'disk' for what persistence costs, "
                        "'replication' for what replicas cost, 'tls' for what TLS costs, "
                        "'trace' for what the trace of the loop costs, "
                        "'cache' for a cache at its limit)")
    p.add_argument("--list", action="store_true", help="list the names")
    p.add_argument("--turns", type=int, default=3, help="turns of each server (%(default)s)")
    p.add_argument("--seconds", type=float, default=2.0, help="of a turn (%(default)s)")
    p.add_argument("--clients", type=int, default=50, help="connections (%(default)s)")
    p.add_argument("--elements", type=int, default=KEYS,
                   help="in a data set (%(default)s)")
    p.add_argument("--sync-keys", type=int, default=replication.SYNC_KEYS, metavar="N",
                   help="keys of a full synchronisation (%(default)s)")
    p.add_argument("--throughput", action="store_true",
                   help="also requests a second, after the table")
    p.add_argument("--budget", action="store_true",
                   help="judge the subject by the budgets")
    p.add_argument("--load", metavar="BIN", default=find_load(),
                   help="the load generator (default: the one built last)")
    p.add_argument("--json", metavar="FILE", help="write every turn's figures")
    p.add_argument("--svg", metavar="FILE", help="draw a chart")
    o = p.parse_args(argv)
    if not (1000 <= o.sync_keys <= 100_000_000 and 1 <= o.turns <= 100 and 0.05 <= o.seconds <= 60 and 1 <= o.clients <= 1000
            and 1000 <= o.elements <= 100_000_000):
        p.error("1 to 100 turns, 0.05 to 60 s, 1 to 1000 clients, 1,000 or more elements")
    if not o.list and not o.load:
        p.error("no load generator: cargo build --release -p bench-load")
    return o


def chosen(items, patterns, group):
    return [i for i in items if not patterns or group in patterns
            or any(fnmatch.fnmatchcase(i.name, p) for p in patterns)]


def specs_of(o):
    specs = [parse_spec(s) for s in o.server]
    if o.peers:
        specs += [(n, [shutil.which(n)]) for n in ("redis-server", "valkey-server")
                  if shutil.which(n)]
    if not specs:
        raise ServerError("no --server is given")
    names = [n for n, _ in specs]
    if len(set(names)) < len(names):
        raise ServerError("two servers of the same name")
    return specs


def note(line):
    """Show progress, if stderr is a terminal."""
    if sys.stderr.isatty():
        print(f"\r\033[K{line}", end="", file=sys.stderr, flush=True)


def run_workloads(servers, workloads, client, report, o):
    """Start all servers and let them take turns."""
    results = {}
    for server in servers:
        server.start()
    report.heading("CPU, us for each request")
    for workload in workloads:
        results[workload.name] = measure.measure(servers, workload, client, o.turns,
                                                 o.seconds, note)
        note("")
        report.workload(workload, results[workload.name])
    if o.throughput:
        report.heading("requests a second")
        for workload in workloads:
            report.throughput(workload, results[workload.name])
    for server in servers:
        server.stop()
    return results


def run_memory(servers, data_sets, client, report, o):
    results = {}
    report.heading("bytes: used_memory / RSS")
    for elements in data_sets:
        results[elements.name] = memory.measure(servers, elements, o.elements, client, note)
        note("")
        report.elements(elements, results[elements.name], elements is ELEMENTS[0])
    return results


def run_scenes(servers, scenes, measured, client, report, show, o):
    """Run scenes of `measured`, the module that has them; `show` reports one."""
    results = {}
    for server in servers:
        server.start()
    report.heading(measured.HEADING)
    for scene in scenes:
        results[scene.name] = measured.measure(servers, scene, client, o.turns, o.seconds, note)
        note("")
        show(scene, results[scene.name])
    for server in servers:
        server.stop()
    return results


def run_replication(scenes, cores, client, report, o):
    results = {}
    with replication.groups(specs_of(o), *cores) as members:
        report.servers = members
        report.heading("replication")
        for scene in scenes:
            results[scene.name] = replication.measure(members, scene, client, o.turns, o.seconds,
                                                      note)
            note("")
            report.rows(scene, results[scene.name])
    return results


def run(o):
    workloads = chosen(WORKLOADS, o.only, "cpu")
    data_sets = chosen(ELEMENTS, o.only, "memory")
    scenes = chosen(disk.scenes(), o.only, "disk") if o.only else []
    replicas = (chosen(replication.scenes(o.sync_keys), o.only, "replication")
                if o.only else [])
    over_tls = chosen(tls.ITEMS, o.only, "tls") if o.only else []
    traced = chosen(trace.scenes(), o.only, "trace") if o.only else []
    caches = chosen(cache.scenes(), o.only, "cache") if o.only else []
    if o.list:
        print("\n".join(i.name for i in [*workloads, *data_sets, *(scenes or disk.scenes()),
                                         *(replicas or replication.scenes()),
                                         *(over_tls or tls.ITEMS),
                                         *(traced or trace.scenes()),
                                         *(caches or cache.scenes())]))
        return 0
    server_core, client_core = measure.cores()
    if server_core is None:
        print("bench: fewer than two cores, or no way to pin: expect noise", file=sys.stderr)
    client = measure.Client(o.load, client_core, o.clients)
    with Fleet(specs_of(o), server_core) as servers:
        report = Report(servers, o.budget)
        data = {"date": datetime.datetime.now().astimezone().isoformat("T", "seconds"),
                "load": os.getloadavg()[0], "turns": o.turns, "seconds": o.seconds,
                "clients": o.clients, "elements": o.elements,
                "servers": [s.name for s in servers],
                "banners": {s.name: s.banner for s in servers},
                "workloads": {}, "memory": {}, "disk": {},
                "replication": {}, "tls": {}, "trace": {}, "cache": {}}
        if workloads:
            data["workloads"] = run_workloads(servers, workloads, client, report, o)
        if data_sets:
            data["memory"] = run_memory(servers, data_sets, client, report, o)
    if scenes:
        with Fleet(specs_of(o), None) as servers:
            report.servers = servers
            data["disk"] = run_scenes(servers, scenes, disk, client, report, report.scene, o)
    if traced:
        with Fleet(specs_of(o), server_core) as servers:
            report.servers = servers
            data["trace"] = run_scenes(servers, traced, trace, client, report, report.scene, o)
    if caches:
        with Fleet(specs_of(o), server_core) as servers:
            report.servers = servers
            data["cache"] = run_scenes(servers, caches, cache, client, report, report.rows, o)
    if replicas:
        data["replication"] = run_replication(replicas, (server_core, client_core), client,
                                              report, o)
    if over_tls:
        data["tls"] = tls.run(specs_of(o), (server_core, client_core), over_tls, report, o, note)
    met = report.summary()
    for path, content in ((o.json, json.dumps(data, indent=1) + "\n"),
                          (o.svg, svg(data) if o.svg else "")):
        if path:
            with open(path, "w", encoding="utf-8") as f:
                f.write(content)
    return 0 if met else 1


def main(argv=None):
    try:
        return run(parse_arguments(argv))
    except ServerError as e:
        print(f"bench: {e}", file=sys.stderr)
        return 2
