"""`book measure`: the lessons' servers under load. What is recorded names the machine, the date and the command."""

import contextlib
import datetime
import os
import pathlib
import platform
import re
import resource
import subprocess
import sys
import tempfile

from .running import Running

SERVERS = ["01_blocking", "02_threads", "03_poll", "04_level", "05_edge", "06_ready_bit"]
CONNECTIONS = [1, 100, 10_000]
OUTSTANDING = [1, 50]
SECONDS = 1
ROUNDS = 3
COMMAND = "make book-figures"


def measure(root):
    build(root)
    raise_limit()
    figures = {"machine": machine(), "road": road(root), "lessons": lessons(root)}
    figures["load"] = {"seconds": SECONDS, "rounds": ROUNDS}
    return figures


def build(root):
    subprocess.run(["cargo", "build", "--quiet", "--release", "-p", "ae", "--examples"], cwd=root, check=True)


def examples(root):
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", root / "target"))
    return target / "release" / "examples"


def raise_limit():
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < max(CONNECTIONS) + 100:
        sys.exit(f"the limit of open files is {hard}: too low for {max(CONNECTIONS)} connections")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def machine(command=COMMAND):
    cpu = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
    return {
        "cpu": cpu[1] if cpu else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "kernel": "Linux " + ".".join(platform.release().split("-")[0].split(".")[:2]),
        "date": datetime.date.today().isoformat(),
        "command": command,
        "load_average": round(os.getloadavg()[0], 1),
    }


class Process(Running):
    """A lesson's server on a free port."""

    def __init__(self, root, name):
        self.folder = tempfile.TemporaryDirectory()
        self.proc = subprocess.Popen([examples(root) / name, "0"], stdout=subprocess.PIPE, text=True,
                                     cwd=self.folder.name)
        self.port = int(re.search(r":(\d+)", self.proc.stdout.readline())[1])

    def cpu_s(self):
        """User and system time of all threads, which the kernel counts in ticks of 10 ms."""
        fields = pathlib.Path(f"/proc/{self.proc.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def status(self, field):
        text = pathlib.Path(f"/proc/{self.proc.pid}/status").read_text()
        return int(re.search(rf"^{field}:\s+(\d+)", text, re.M)[1])


class Load:
    """The connections to one server, which are idle between phases."""

    def __init__(self, root, server, connections, phases):
        arguments = [str(n) for n in (server.port, connections, SECONDS, *phases)]
        self.server = server
        self.proc = subprocess.Popen([examples(root) / "load", *arguments], stdin=subprocess.PIPE,
                                     stdout=subprocess.PIPE, text=True)
        self.wait_until_ready(connections)
        for process in (server.proc, self.proc):
            for thread in os.listdir(f"/proc/{process.pid}/task"):
                raise_priority(int(thread))

    def wait_until_ready(self, connections):
        if self.proc.stdout.readline() != "ready\n":
            sys.exit(f"the load can't connect {connections} times")

    def phase(self, connections, is_last):
        server = self.server
        before = server.cpu_s()
        self.proc.stdin.write("\n")
        self.proc.stdin.flush()
        count, seconds = self.proc.stdout.readline().split()
        found = {"requests_a_second": round(int(count) / float(seconds)),
                 "cpu_us": round((server.cpu_s() - before) / int(count) * 1e6, 2),
                 "memory_kb": server.status("VmRSS"), "threads": server.status("Threads")}
        if not is_last:
            self.wait_until_ready(connections)
        return found


def raise_priority(thread):
    """Other work on the machine then disturbs less. (Linux has a priority for each thread.)"""
    try:
        os.setpriority(os.PRIO_PROCESS, thread, -10)
    except PermissionError:
        pass


def road(root):
    """For each server, number of connections and number of outstanding requests: the best of the rounds. The servers
    take turns, so that a busy minute of the machine is not one server's."""
    table = {}
    for connections in CONNECTIONS:
        names = [name for name in SERVERS if name != "01_blocking" or connections == 1]
        phases = [n for n in OUTSTANDING if n <= connections] * ROUNDS
        with contextlib.ExitStack() as stack:
            servers = [stack.enter_context(Process(root, name)) for name in names]
            loads = [Load(root, server, connections, phases) for server in servers]
            for at, outstanding in enumerate(phases):
                for name, load in zip(names, loads):
                    found = load.phase(connections, at + 1 == len(phases))
                    rows = table.setdefault(name, {}).setdefault(str(connections), {})
                    rows[f"of{outstanding}"] = better(rows.get(f"of{outstanding}"), found)
                    print(name, connections, outstanding, found, file=sys.stderr, flush=True)
            for load in loads:
                load.proc.wait()
    return table


def better(before, found):
    if before is None:
        return found
    best = {"requests_a_second": max, "cpu_us": min, "memory_kb": max, "threads": max}
    return {key: pick(before[key], found[key]) for key, pick in best.items()}


# What is read from the lines that ae/lessons/try.py prints of a lesson: lesson, name, pattern.
LINES = [
    (2, "threads", r"([\d,]+) threads"),
    (2, "resident_kb", r"([\d,]+) KB resident"),
    (2, "reserved_mb", r"([\d,]+) MB reserved"),
    (5, "sent", r"of ([\d,]+) bytes"),
    (5, "came_back", r"([\d,]+) came back"),
    (8, "slowest_ms", r"a client waits [\d.]+ ms \(at most ([\d.]+) ms"),
    (9, "slowest_ms", r"a client waits [\d.]+ ms \(at most ([\d.]+) ms"),
    (9, "operator_slowest_ms", r"the operator waits [\d.]+ ms \(at most ([\d.]+) ms"),
    (10, "single_us", r"CPU for each PING, 1 in a pipeline: ([\d.]+) us"),
    (10, "pipeline_us", r"CPU for each PING, 100 in a pipeline: ([\d.]+) us"),
    (11, "long_s", r"after ([\d.]+) s"),
    (11, "slowest_ms", r"at most ([\d.]+) ms"),
    (13, "kill_ms", r"KILL took ([\d.]+) ms"),
    (14, "idle_pages", r"SAVE, idle: ([\d,]+) pages"),
    (14, "busy_pages", r"are written: ([\d,]+) pages"),
]


def lessons(root):
    """The figures that `ae/lessons/try.py` prints."""
    found = {}
    for number in sorted({line[0] for line in LINES}):
        run = subprocess.run([sys.executable, "ae/lessons/try.py", str(number)], cwd=root, check=True,
                             capture_output=True, text=True, preexec_fn=lambda: raise_priority(0))
        print(run.stdout, file=sys.stderr, end="", flush=True)
        # The lines of the lesson before come first.
        own = "".join(line for line in run.stdout.splitlines(True) if line.startswith(f"{number:02}_"))
        for lesson, name, pattern in LINES:
            if lesson == number:
                value = re.search(pattern, own)[1].replace(",", "")
                shown = float(value) if "." in value else int(value)
                found.setdefault(f"{number:02}", {})[name] = shown
    return found
