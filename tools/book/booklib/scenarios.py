"""`book trace`: a server with each fault of `--teach`, and the same load without it.

Each scenario returns all spans, a window (its beginning and its length) and facts. Of the window
are recorded, as `[name, category, start us, duration us, depth, note]`, the spans of the event loop and,
with depth -1, those of other threads.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

from .running import Running

SPIN = ("local function now() local t = redis.call('TIME') return t[1] * 1000 + t[2] / 1000 end "
        "local began = now() repeat until now() - began > 60 return 1")
LOOP = 1
NEVER = 20  # seconds


class Server(Running):
    def __init__(self, program, teach, *settings, niceness=-10):
        self.folder = tempfile.TemporaryDirectory()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.path = os.path.join(self.folder.name, "sock")
        command = [program, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", self.folder.name,
                   "--unixsocket", self.path, "--save", "", "--teach", teach, *settings]
        self.proc = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            # Other work on the machine would be in the trace as long blocks.
            os.setpriority(os.PRIO_PROCESS, self.proc.pid, niceness)
        except PermissionError:
            pass
        end = time.monotonic() + NEVER
        while True:
            try:
                self.control = self.connect()
                self.control.cmd("PING")
                break
            except OSError:
                if time.monotonic() > end:
                    sys.exit("the server does not start")
                time.sleep(0.05)

    def connect(self):
        return Connection(self.path)

    def stop(self):
        """Stops the process, and returns when it has stopped."""
        os.kill(self.proc.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, self.proc.pid, os.WSTOPPED)

    def start_trace(self):
        self.control.cmd("TRACE", "START", "EVENTS", "1000000")

    def dump(self):
        """The spans of the trace, by start: name, category, start, duration, thread, arguments."""
        self.control.cmd("TRACE", "STOP")
        events = json.loads(self.control.cmd("TRACE", "DUMP"))["traceEvents"]
        names = {e["tid"]: e["args"]["name"] for e in events
                 if e["name"] == "thread_name" and e["pid"] == 1}
        spans = [Span(e, names) for e in events if e["ph"] == "X" and e["pid"] == 1]
        return sorted(spans, key=lambda span: (span.start, -span.time))


class Connection:
    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(NEVER)
        self.socket.connect(path)
        self.file = self.socket.makefile("rb")

    def send(self, *words):
        words = [word.encode() for word in words]
        self.socket.sendall(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in words))

    def reply(self):
        line = self.file.readline()
        if line[:1] != b"$" or line == b"$-1\r\n":
            return line
        return self.file.read(int(line[1:]) + 2)[:-2]

    def cmd(self, *words):
        self.send(*words)
        return self.reply()


class Span:
    def __init__(self, event, threads):
        self.name, self.category = event["name"], event["cat"]
        self.start, self.time = event["ts"], event["dur"]
        self.thread, self.thread_name = event["tid"], threads.get(event["tid"], "")
        self.args = event.get("args", {})

    @property
    def end(self):
        return self.start + self.time


def window(spans, begin, length):
    """The spans of the window, cut at its ends, with their depth. What is too short to be seen is left out."""
    out, open_ends = [], {}
    for span in spans:
        start, end = max(span.start, begin), min(span.end, begin + length)
        seen = end - start >= length / 1200 or span.category in ("nested turn", "expire")
        if end <= begin or start >= begin + length or not seen or span.category == "step":
            continue
        stack = open_ends.setdefault(span.thread, [])
        while stack and stack[-1] <= span.start:
            stack.pop()
        depth = len(stack) if span.thread == LOOP else -1
        stack.append(span.end)
        note = next((f"{span.args[key]:,} {key}" for key in ("bytes", "keys") if key in span.args), "")
        out.append([span.name, span.category, round(start - begin, 1), round(end - start, 1), depth, note])
    return out


def turns(spans, begin, length):
    return [s for s in spans if s.category == "turn" and s.end > begin and s.start < begin + length]


def no_drain(program, teach):
    """96 KB of requests are in the socket before the server sees the first byte: one edge."""
    with Server(program, teach) as server:
        other, client = server.connect(), server.connect()
        other.cmd("PING")
        client.cmd("PING")
        server.start_trace()
        server.stop()
        requests = b"PING\r\n" * (96 * 1024 // 6)
        client.socket.sendall(requests)
        os.kill(server.proc.pid, signal.SIGCONT)
        # Nothing is read yet: on a unix socket that would be an edge, and an edge of either
        # direction reports both.
        for _ in range(10):
            other.cmd("PING")
            time.sleep(0.002)
        spans = server.dump()
        first = next(s for s in spans if s.name == "read" and s.args["bytes"] == 64 * 1024)
        reads = [s.args["bytes"] for s in spans if s.name == "read" and s.args["client"] == first.args["client"]]
        facts = {"sent_bytes": len(requests), "read_bytes": sum(reads)}
        return (spans, first.start - 500, 30_000), facts


def level(program, teach):
    """One request, and then silence."""
    with Server(program, teach) as server:
        client = server.connect()
        client.cmd("PING")
        server.start_trace()
        time.sleep(0.005)
        client.cmd("PING")
        time.sleep(0.021)
        spans = server.dump()
        ping = [s for s in spans if s.name == "PING"][-1]
        begin, length = ping.start - 100, 1500
        inside = turns(spans, ping.end, 20_000)
        return (spans, begin, length), {"turns_in_20_ms": len(inside)}


def slow_command(program, teach):
    """A script that runs for 60 ms, and a PING of another client."""
    with Server(program, teach, "--busy-reply-threshold", "5") as server:
        client, other = server.connect(), server.connect()
        other.cmd("PING")
        server.start_trace()
        client.send("EVAL", SPIN, "0")
        time.sleep(0.012)
        began = time.perf_counter()
        reply = other.cmd("PING")
        waited = time.perf_counter() - began
        client.reply()
        spans = server.dump()
        script = next(s for s in spans if s.name == "EVAL")
        nested = sum(1 for s in spans if s.category == "nested turn")
        facts = {"nested_turns": nested, "other_waited_ms": round(waited * 1000, 1),
                 "other_reply": reply.decode().split()[0]}
        return (spans, script.start - 2000, 70_000), facts


def blocking_fsync(program, teach):
    """Writes with appendfsync always, and a client that only reads."""
    with Server(program, teach, "--appendonly", "yes", "--appendfsync", "always") as server:
        writer, reader = server.connect(), server.connect()
        writer.cmd("SET", "k", "v")
        over = threading.Event()

        def read():
            while not over.is_set():
                reader.cmd("GET", "k")
        thread = threading.Thread(target=read)
        server.start_trace()
        thread.start()
        for _ in range(8):
            writer.cmd("SET", "k", "v")
        over.set()
        thread.join()
        spans = server.dump()
        syncs = [s for s in spans if s.category in ("fsync", "blocking fsync")]

        def gets(sync):
            return sum(1 for s in spans if s.name == "GET" and sync.start <= s.start <= sync.end)
        sync = max(syncs, key=gets)
        facts = {"fsync_ms": round(sync.time / 1000, 2), "gets_during_fsync": gets(sync)}
        return (spans, sync.start - 300, max(sync.time * 1.3, 1500)), facts


def no_budget(program, teach):
    """A client that sends 1.5 MB of requests, and another that sends PING. The clients must be fast enough."""
    with Server(program, teach, niceness=0) as server:
        sender, other = server.connect(), server.connect()
        other.cmd("PING")
        server.start_trace()
        count = 1_500_000 // 6
        receiver = threading.Thread(target=lambda: sender.file.read(7 * count))
        receiver.start()
        waits = []
        over = threading.Event()

        def ping():
            while not over.is_set():
                began = time.perf_counter()
                other.cmd("PING")
                waits.append(time.perf_counter() - began)
        thread = threading.Thread(target=ping)
        thread.start()
        sender.socket.sendall(b"PING\r\n" * count)
        receiver.join()
        over.set()
        thread.join()
        spans = server.dump()
        calls = [(s, sum(r.args["bytes"] for r in spans
                         if r.name == "read" and s.start <= r.start < s.end))
                 for s in spans if s.category == "readable" and "client" in s.args and s.time > 1000]
        longest, moved = max(calls, key=lambda call: call[1])
        facts = {"largest_call_bytes": moved, "longest_call_ms": round(longest.time / 1000, 1),
                 "longest_wait_ms": round(max(waits) * 1000, 1)}
        first = min(call.start for call, _ in calls)
        return (spans, first - 2000, longest.end - first + 10_000), facts


def rehash_at_once(program, teach):
    """200,000 keys; the table grows on the way."""
    with Server(program, teach, "--hz", "100") as server:
        client = server.connect()
        client.cmd("SET", "key:0", "v")
        server.start_trace()
        for start in range(0, 200_000, 50):
            client.socket.sendall(b"".join(b"SET key:%d v\r\n" % k for k in range(start, start + 50)))
            for _ in range(50):
                client.file.readline()
        time.sleep(0.3)
        spans = server.dump()
        sets = [s for s in spans if s.name == "SET"]
        longest = max(sets, key=lambda s: s.time)
        rehashes = [s for s in spans if s.category == "rehash"]
        facts = {"longest_set_us": round(longest.time), "rehash_spans": len(rehashes)}
        mark = longest if teach != "no" else max(rehashes, key=lambda s: s.time)
        return (spans, mark.start - longest.time * 0.1, longest.time * 1.25), facts


def sampled_expiry(program, teach):
    """20,000 keys of which 1,000 expire at the same moment."""
    with Server(program, teach, "--hz", "100") as server:
        client = server.connect()
        for start in range(0, 19_000, 500):
            words = [w for k in range(start, start + 500) for w in (f"key:{k}", "v")]
            client.cmd("MSET", *words)
        server.start_trace()
        client.cmd("EVAL", "for i = 1, 1000 do redis.call('SET', 'dead:' .. i, 'v', 'PX', 30) end", "0")
        time.sleep(0.6)
        left = int(client.cmd("DBSIZE")[1:]) - 19_000
        spans = server.dump()
        expires = [s for s in spans if s.category == "expire" and s.args.get("keys", 0) > 0]
        facts = {"expire_spans": len(expires), "keys_left_after_600_ms": left,
                 "keys_in_first_span": expires[0].args["keys"]}
        return (spans, expires[0].start - 5_000, 60_000), facts


SCENARIOS = {"no-drain": no_drain, "level": level, "slow-command": slow_command,
             "blocking-fsync": blocking_fsync, "no-budget": no_budget, "rehash-at-once": rehash_at_once,
             "sampled-expiry": sampled_expiry}


def record(program):
    """For each fault: the window and the facts without and with it."""
    found = {}
    for mode, scenario in SCENARIOS.items():
        healthy, healthy_facts = scenario(program, "no")
        broken, broken_facts = scenario(program, mode)
        length = round(max(healthy[2], broken[2]))
        found[mode.replace("-", "_")] = {
            "healthy": {"spans": window(*healthy[:2], length), "facts": healthy_facts},
            "fault": {"spans": window(*broken[:2], length), "facts": broken_facts},
            "length_us": length,
        }
        print(mode, healthy_facts, broken_facts, file=sys.stderr, flush=True)
    return found
