"""Servers under measurement: started, asked, and ended here.

Each has a directory of its own, a free loopback port, no persistence, and one
core. Only processes started here are ever signalled, and all of them are ended
however the run ends (`Fleet` is a context manager).
"""

import contextlib
import glob
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import time

START_SECONDS = 60
PLAIN = ("--save", "", "--appendonly", "no", "--daemonize", "no", "--bind",
         "127.0.0.1", "--dbfilename", "bench.rdb")


class ServerError(Exception):
    """A server that does not start, or does not answer."""


class Resp:
    """Just enough of a client to set up and to ask."""

    def __init__(self, port, timeout=120):
        self.sock = socket.create_connection(("127.0.0.1", port), timeout)
        self.file = self.sock.makefile("rb")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()
        self.sock.close()

    def ask(self, *words):
        """The reply; an error reply as ServerError."""
        words = [w if isinstance(w, bytes) else str(w).encode() for w in words]
        self.sock.sendall(b"*%d\r\n" % len(words) + b"".join(
            b"$%d\r\n%s\r\n" % (len(w), w) for w in words))
        return self.reply()

    def reply(self):
        line = self.file.readline()
        if not line.endswith(b"\r\n"):
            raise ServerError("the connection was closed")
        kind, rest = line[:1], line[1:-2]
        if kind == b"-":
            raise ServerError(rest.decode("utf-8", "replace"))
        if kind == b"$":
            n = int(rest)
            return None if n < 0 else self.file.read(n + 2)[:-2]
        if kind == b"*":
            return [self.reply() for _ in range(int(rest))]
        return int(rest) if kind == b":" else rest


def parse_spec(text):
    """`name=path args`, or a path alone: (name, [path, args...])."""
    name, equals, rest = text.partition("=")
    if not equals or "/" in name or " " in name:
        name, rest = "", text
    command = shlex.split(rest)
    if not command:
        raise ServerError(f"no program in --server {text!r}")
    path = shutil.which(command[0])
    if path is None:
        raise ServerError(f"not an executable: {command[0]}")
    return name or os.path.basename(path), [os.path.abspath(path), *command[1:]]


def kind_of(banner):
    """`redis-7.0`, `valkey-8.0` and the like from --version, else ''."""
    found = re.match(r"(Redis|Valkey) server v=(\d+\.\d+)", banner)
    return f"{found[1].lower()}-{found[2]}" if found else ""


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def pin(core):
    """A function that moves a child to a core before it runs, or None."""
    if core is None:
        return None
    return lambda: os.sched_setaffinity(0, {core})


class Server:
    """One server. A command with {port} in it is run as it is written, and one that
    ends in @N listens on port N whatever its settings are: so a program without
    settings, such as an example of `ae`, can be measured too."""

    def __init__(self, name, command, core):
        self.name, self.command, self.core = name, command, core
        self.proc = self.port = None
        self.dir = tempfile.mkdtemp(prefix="bench-")
        self.banner = self.version()
        # Ours reports itself in Redis's shape; only the real ones are peers.
        self.kind = kind_of(self.banner) if not name.startswith("aeris") else ""

    def version(self):
        try:
            done = subprocess.run([self.command[0], "--version"], timeout=5,
                                  stdin=subprocess.DEVNULL, capture_output=True)
        except (OSError, subprocess.TimeoutExpired):
            return ""
        return done.stdout.decode("utf-8", "replace").strip().split("\n")[0]

    def start(self):
        """Start it; returns the seconds until it answers PING."""
        self.port, args = self.arguments()
        began = time.monotonic()
        with open(os.path.join(self.dir, "log"), "ab") as log:
            self.proc = subprocess.Popen(
                args, cwd=self.dir, stdin=subprocess.DEVNULL, stdout=log,
                stderr=subprocess.STDOUT, preexec_fn=pin(self.core))
        while time.monotonic() - began < START_SECONDS:
            if self.proc.poll() is not None:
                raise ServerError(f"{self.name} ended at start: {self.log_tail()}")
            if self.answers():
                return time.monotonic() - began
            time.sleep(0.002)
        raise ServerError(f"{self.name} does not answer: {self.log_tail()}")

    def arguments(self):
        """The port it will listen on, and its command line."""
        if re.fullmatch(r"@\d+", self.command[-1]):
            return int(self.command[-1][1:]), self.command[:-1]
        port = free_port()
        args = [a.replace("{port}", str(port)) for a in self.command]
        if args == self.command:
            args += ["--port", str(port), "--dir", self.dir, *PLAIN]
        return port, args

    def answers(self):
        try:
            with Resp(self.port, 5) as c:
                return c.ask("PING") == b"PONG"
        except (OSError, ServerError, ValueError):
            return False                       # not yet listening, or loading

    def log_tail(self):
        with open(os.path.join(self.dir, "log"), errors="replace") as f:
            return " | ".join(f.read().split("\n")[-4:])[-300:]

    def stop(self):
        if self.proc is not None and self.proc.poll() is None:
            self.proc.terminate()
            try:
                self.proc.wait(10)
            except subprocess.TimeoutExpired:
                self.proc.kill()
                self.proc.wait()
        self.proc = None

    @contextlib.contextmanager
    def stopped(self):
        """Meanwhile the process gets no CPU."""
        self.proc.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.proc.send_signal(signal.SIGCONT)

    def lower_priority(self):
        """From now on the process runs when no other one wants its processor."""
        for task in os.listdir(f"/proc/{self.proc.pid}/task"):
            os.sched_setscheduler(int(task), os.SCHED_IDLE, os.sched_param(0))

    def ask(self, *words):
        with Resp(self.port) as c:
            return c.ask(*words)

    def cpu_ns(self):
        """CPU time so far, user and system, of all threads."""
        total = 0
        for path in glob.glob(f"/proc/{self.proc.pid}/task/*/schedstat"):
            try:
                with open(path) as f:
                    total += int(f.read().split()[0])
            except OSError:
                pass                           # a thread that has just ended
        return total

    def rss(self):
        with open(f"/proc/{self.proc.pid}/status") as f:
            return 1024 * next(int(line.split()[1]) for line in f
                               if line.startswith("VmRSS:"))

    def memory_with_children(self):
        """Bytes of the process and of its children, a shared page counted once."""
        pid = self.proc.pid
        with open(f"/proc/{pid}/task/{pid}/children") as f:
            pids = [pid, *map(int, f.read().split())]
        total = 0
        for one in pids:
            try:
                with open(f"/proc/{one}/smaps_rollup") as f:
                    total += next(int(line.split()[1]) for line in f if line.startswith("Pss:"))
            except OSError:
                pass                           # a child that has just ended
        return 1024 * total

    def used_memory(self):
        text = self.ask("INFO", "memory").decode()
        return int(re.search(r"^used_memory:(\d+)", text, re.M)[1])


class Fleet:
    """All servers of a run; ends them when it is left."""

    def __init__(self, specs, core):
        self.servers = [Server(name, command, core) for name, command in specs]

    def __enter__(self):
        return self.servers

    def __exit__(self, *_):
        for server in self.servers:
            server.stop()
            shutil.rmtree(server.dir, ignore_errors=True)
