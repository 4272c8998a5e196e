"""From the command line to the report: choose the units, run them on a few
workers, write what came out."""

import concurrent.futures
import datetime
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time

from .expected import Clean, Expected, ListError
from .options import parse_arguments
from .probe import Probe
from .process import set_limits
from .report import report
from .results import FIELDS, Baseline, summarise, totals
from .text import note, shorten
from .tree import Tree, choose_units, find_programs, is_instance_unit
from .unit import UnitRunner
from .workcopy import PortLease, WorkCopy, make_certificates


class Run:
    """A run over many units: the workers, and the results so far."""

    def __init__(self, tree, units, expected, baseline, o):
        self.tree, self.units, self.o = tree, units, o
        self.baseline = baseline
        self.runner = UnitRunner(o, expected)
        self.copies = queue.Queue()
        self.lock = threading.Lock()
        self.results, self.problems = {}, []
        self.seconds = None                  # of the whole run, once it is over

    def run(self):
        with tempfile.TemporaryDirectory(prefix="suite-") as parent:
            parent = os.path.realpath(parent)
            leases = [PortLease() for _ in range(self.o.jobs)]
            if not self.o.no_probe:
                self.probe(parent, leases[0].base)
            certificates = (make_certificates(self.tree, parent) if self.o.tls
                            else None)
            for number, lease in enumerate(leases):
                self.copies.put(WorkCopy(self.tree, parent, number, lease.base,
                                         self.o, certificates))
            started = time.monotonic()
            # Longest first.  The suites with many instances get the machine
            # for themselves, at the end.
            ordered = sorted(self.units,
                             key=lambda u: -self.baseline.seconds(u))
            self.batch([u for u in ordered if not is_instance_unit(u)],
                       self.o.jobs)
            self.batch([u for u in ordered if is_instance_unit(u)], 1)
            self.seconds = round(time.monotonic() - started, 1)
            for lease in leases:
                lease.lock.close()
        return self.save()

    def probe(self, parent, port):
        probe = Probe(self.tree, self.o.programs["server"],
                      os.path.join(parent, "probe"), port, self.o.start_wait)
        self.problems, self.o.dropped = probe.run()
        for problem in self.problems:
            note(f"probe: the server {problem}")
        if self.o.dropped:
            note("probe: the server refuses these lines of default.conf, "
                 "left out: " + ", ".join(self.o.dropped))

    def batch(self, units, jobs):
        with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
            futures = [pool.submit(self.work, unit) for unit in units]
            try:
                for future in futures:
                    future.result()
            except BaseException:
                self.runner.stop.set()
                raise

    def work(self, unit):
        if self.runner.stop.is_set():
            return
        copy = self.copies.get()
        try:
            result = self.runner.run_unit(copy, unit)
        finally:
            self.copies.put(copy)
        if self.runner.stop.is_set():
            return
        with self.lock:
            self.results[unit] = result
            note(f"[{len(self.results)}/{len(self.units)}] {unit}: "
                 + " ".join(f"{f}={result[f]}" for f in FIELDS if result[f])
                 + f" ({result['seconds']:.0f} s)")
            self.save()

    def save(self):
        """The results as data; also into --out, after every unit."""
        o = self.o
        ordered = {u: self.results[u] for u in self.units if u in self.results}
        data = {
            "suite": self.tree.name, "server": o.banner,
            "date": datetime.datetime.now().astimezone().isoformat("T", "seconds"),
            "cpus": os.cpu_count(), "load": round(os.getloadavg()[0], 2),
            "complete": self.seconds is not None, "seconds": self.seconds,
            "options": {k: getattr(o, k) for k in (
                "jobs", "clients", "timeout_per_unit", "test_timeout",
                "start_wait", "resume", "retries", "profile", "tags", "config",
                "suite_args")},
            "probe": self.problems, "dropped_config": o.dropped,
            "totals": totals(ordered), "units": ordered}
        if o.out:
            write_json(o.out, data)
        return data


def write_json(path, data):
    with open(path + ".tmp", "w", encoding="utf-8") as f:
        json.dump(data, f, indent=1)
        f.write("\n")
    os.replace(path + ".tmp", path)


def read_json(path, default=None):
    if default is not None and not os.path.exists(path):
        return default
    with open(path, encoding="utf-8") as f:
        return json.load(f)


def server_banner(o):
    try:
        done = subprocess.run([o.server, "--version"], timeout=10,
                              stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        return shorten(done.stdout.decode("utf-8", "replace"), 160)
    except (OSError, subprocess.TimeoutExpired) as e:
        return f"--version failed: {e}"


def run_suite(o, expected, clean, baseline):
    tree = Tree(o.src)
    if o.clean:
        o.units += clean.units()
        if not o.units:
            print("suite: clean.txt holds nothing")
            return 0
    units = choose_units(tree, o)
    if o.list:
        print("\n".join(units))
        return 0
    o.programs = find_programs(tree, o)
    if o.logs:
        o.logs = os.path.abspath(o.logs)
        os.makedirs(o.logs, exist_ok=True)
    o.banner = server_banner(o)
    note(f"{tree.name}: {len(units)} units, {o.jobs} at once; server: {o.banner}")
    set_limits()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    data = Run(tree, units, expected, baseline, o).run()
    return report(data, baseline, expected, clean, o)


def main(argv=None):
    o = parse_arguments(argv)
    try:
        expected, clean = Expected.read(o.expected), Clean.read(o.clean_list)
        if o.tls:
            expected.lines += Expected.read(o.expected_tls).lines
    except (OSError, ListError) as e:
        raise SystemExit(f"suite: {e}") from None
    baseline = Baseline(read_json(o.baseline, {"server": "none", "units": {}}))
    if not o.report:
        return run_suite(o, expected, clean, baseline)
    data = read_json(o.report)
    if o.make_baseline:
        known = read_json(o.make_baseline, {"units": {}})["units"]
        small = Baseline.shrink(data)
        small["units"] = dict(sorted({**known, **small["units"]}.items()))
        write_json(o.make_baseline, small)
        return 0
    for unit, result in data["units"].items():
        expected.judge(unit, result)
        summarise(result)
    data["totals"] = totals(data["units"])
    return report(data, baseline, expected, clean, o)
