"""A look at the server before the run: what the suite will miss in it.

The server is started as the suites start theirs. One that does not understand
a line of default.conf gets a default.conf without it; that is reported.
"""

import os
import signal
import socket
import subprocess
import time

from .process import child_env, kill_all


class Probe:
    """Start the server the way the suites do and see what they will see."""

    EXITS = "ends at start with status "

    def __init__(self, tree, binary, folder, base, wait):
        self.binary, self.folder, self.wait = binary, folder, wait
        self.port = base
        self.wants_initialized = tree.family == "valkey"
        os.makedirs(folder, exist_ok=True)
        conf = os.path.join(tree.path, "tests", "assets", "default.conf")
        with open(conf, errors="replace") as f:
            lines = [l.strip() for l in f]
        self.lines = [l for l in lines if l and not l.startswith("#")]

    def start(self, lines, wait, short=False):
        """Start with these configuration lines; returns (problems, output).
        A short look only finds out whether the server ends by itself."""
        own = ("port", "dir", "unixsocket", "pidfile")
        lines = [l for l in lines if l.split()[0] not in own]
        lines += [f"port {self.port}", f"dir {self.folder}",
                  f"unixsocket {self.folder}/socket"]
        conf = os.path.join(self.folder, "probe.conf")
        with open(conf, "w") as f:
            f.write("\n".join(lines) + "\n")
        out_path = os.path.join(self.folder, "out")
        with open(out_path, "wb") as out:
            proc = subprocess.Popen(
                [self.binary, conf], cwd=self.folder, stdout=out,
                stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                env=child_env(), start_new_session=True)

        def output():
            with open(out_path, "rb") as f:
                return f.read().decode("utf-8", "backslashreplace")

        try:
            deadline = time.monotonic() + wait
            up = False
            while time.monotonic() < deadline and proc.poll() is None:
                up = up or self.ask("PING") is not None
                if up and (short or "Ready to accept" in output()):
                    break
                time.sleep(0.05)
            if proc.poll() is not None:
                return [self.EXITS + str(proc.returncode)], output()
            if short:
                return [], ""
            return self.look(proc, up, output()), output()
        finally:
            kill_all(proc, self.folder)

    def look(self, proc, up, text):
        """What the suites would miss in a server that runs."""
        problems = []
        if f" PID: {proc.pid}" not in text:
            problems.append(f"does not log ' PID: {proc.pid}' to stdout")
        if self.wants_initialized and "Server initialized" not in text:
            problems.append("does not log 'Server initialized'")
        if "Ready to accept" not in text:
            problems.append("does not log 'Ready to accept'")
        if not up:
            problems.append("does not answer PING")
        elif self.ask("SELECT 9") != "+OK":
            problems.append("does not answer SELECT 9 with OK")
        os.kill(proc.pid, signal.SIGTERM)
        try:
            proc.wait(10)
        except subprocess.TimeoutExpired:
            problems.append("does not end within 10 s of SIGTERM")
        return problems

    def ask(self, line):
        try:
            with socket.create_connection(("127.0.0.1", self.port), 2) as s:
                s.settimeout(2)
                s.sendall(line.encode() + b"\r\n")
                return s.recv(200).decode("latin-1").split("\r\n")[0] or None
        except OSError:
            return None

    def run(self):
        """Returns (problems, names of directives the server refuses)."""
        problems, text = self.start(self.lines, self.wait)
        if not problems or not problems[0].startswith(self.EXITS):
            return problems, []
        refused = [line.split()[0] for line in self.lines
                   if self.start([line], 3, short=True)[0]]
        kept = [l for l in self.lines if l.split()[0] not in refused]
        if not kept or not refused:
            tail = " | ".join(l for l in text.split("\n") if l.strip())[-300:]
            return [problems[0] + ": " + tail], []
        return self.start(kept, self.wait)[0], refused
