#!/usr/bin/env python3
"""Start a lesson, show what it lacks, and print the figure.

    python3 ae/lessons/try.py 5          one lesson
    python3 ae/lessons/try.py all        each of them, one after the other

The lesson is built and started on a free port and ended afterwards. A figure depends on the machine;
what it shows does not.
"""

import glob
import os
import re
import select
import socket
import subprocess
import sys
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
PORTION = 64 * 1024


def name_of(number):
    return os.path.basename(glob.glob(f"{HERE}/{number:02}_*.rs")[0])[:-3]


class Lesson:
    """The program of a lesson, as a process."""

    def __init__(self, number):
        command = ["cargo", "build", "--quiet", "--release", "-p", "ae", "--example", name_of(number)]
        subprocess.run(command, cwd=ROOT, check=True)
        folder = os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target"))
        program = os.path.join(folder, "release", "examples", name_of(number))
        self.proc = subprocess.Popen([program, "0"], stdout=subprocess.PIPE, text=True)
        lines = [self.proc.stdout.readline() for _ in range(1 if number < 9 else 2)]
        ports = {"operator" in line: int(re.search(r":(\d+)", line)[1]) for line in lines}
        self.port, self.operator = ports[False], ports.get(True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.proc.kill()
        self.proc.wait()

    def connect(self, port=None):
        return socket.create_connection(("127.0.0.1", port or self.port))

    def status(self, field):
        with open(f"/proc/{self.proc.pid}/status") as f:
            return int(re.search(rf"^{field}:\s+(\d+)", f.read(), re.M)[1])

    def cpu(self):
        """Seconds of CPU so far."""
        with open(f"/proc/{self.proc.pid}/schedstat") as f:
            return int(f.read().split()[0]) / 1e9


def receive(sock, size, patience=30):
    """Up to `size` bytes; fewer when the peer closes or nothing comes for `patience` seconds."""
    got = bytearray()
    while len(got) < size and select.select([sock], [], [], patience)[0]:
        portion = sock.recv(min(size - len(got), 1 << 20))
        if not portion:
            break
        got += portion
    return bytes(got)


def round_trip(sock, request=b"PING\r\n", size=6):
    began = time.perf_counter()
    sock.sendall(request)
    receive(sock, size)
    return time.perf_counter() - began


def hog(lesson, over):
    """A client that sends and reads as fast as it can."""
    sock = lesson.connect()

    def send():
        try:
            while not over.is_set():
                sock.sendall(bytes(1 << 20))
        except OSError:
            pass

    def read():
        try:
            while sock.recv(1 << 20):
                pass
        except OSError:
            pass
    for work in (send, read):
        threading.Thread(target=work, daemon=True).start()
    return sock


def one_client(lesson):
    first = lesson.connect()
    second = lesson.connect()
    second.sendall(b"x")
    waits = receive(second, 1, 0.5) == b""
    first.close()
    print(f"a second client: {'no reply within 0.5 s' if waits else 'a reply'}; "
          f"after the first has closed: {receive(second, 1).decode()!r}")


def threads(lesson):
    idle = [lesson.connect() for _ in range(1000)]
    round_trip(idle[-1])
    print(f"1,000 idle clients: {lesson.status('Threads'):,} threads, "
          f"{lesson.status('VmRSS'):,} KB resident, {lesson.status('VmSize') // 1024:,} MB reserved")


def cost_of_idle(lesson):
    def cost():
        before = lesson.cpu()
        for _ in range(2000):
            round_trip(client)
        return (lesson.cpu() - before) / 2000 * 1e6
    client = lesson.connect()
    alone = cost()
    idle = [lesson.connect() for _ in range(1000)]
    round_trip(idle[-1])
    print(f"CPU for each request: {alone:.0f} us; beside 1,000 idle clients: {cost():.0f} us")


def lost_edge(lesson):
    sock = lesson.connect()
    sock.sendall(bytes(PORTION))
    print(f"sent {PORTION:,} bytes, {len(receive(sock, PORTION, 1)):,} came back")


def deaf_client(lesson):
    size = 32 << 20
    before = lesson.status("VmRSS")
    sock = lesson.connect()
    writer = threading.Thread(target=sock.sendall, args=(bytes(size),), daemon=True)
    writer.start()
    time.sleep(1)                              # nothing is read
    grown = lesson.status("VmRSS") - before
    print(f"sent {size:,} bytes and read late: {len(receive(sock, size, 1)):,} came back; "
          f"the server grew by {max(grown, 0):,} KB")


def idle_client(lesson):
    sock = lesson.connect()
    began = time.monotonic()
    sock.recv(1)
    print(f"an idle client is closed after {time.monotonic() - began:.1f} s")


def latency_beside_a_hog(lesson):
    over = threading.Event()
    sockets = [hog(lesson, over) for _ in range(2)]
    time.sleep(0.5)
    ports = [("a client", lesson.port)]
    if lesson.operator:
        ports.append(("the operator", lesson.operator))
    for label, port in ports:
        client = lesson.connect(port)
        times = sorted(round_trip(client) for _ in range(50))
        print(f"beside two clients that never stop, {label} waits {times[25] * 1e3:.2f} ms "
              f"(at most {times[-1] * 1e3:.1f} ms)")
    over.set()
    for sock in sockets:
        sock.close()


def pipeline(lesson):
    client = lesson.connect()
    for depth in (1, 100):
        before = lesson.cpu()
        for _ in range(20_000 // depth):
            round_trip(client, b"PING\r\n" * depth, 7 * depth)
        print(f"CPU for each PING, {depth} in a pipeline: {(lesson.cpu() - before) / 20_000 * 1e6:.2f} us")


def worker(lesson):
    waits, other = lesson.connect(), lesson.connect()
    began = time.perf_counter()
    waits.sendall(b"PRIMES 3000000\r\n")
    slowest = max(round_trip(other, size=7) for _ in range(200))
    reply = receive(waits, 9).decode().strip()
    print(f"PRIMES {reply} after {time.perf_counter() - began:.2f} s; "
          f"PING meanwhile took at most {slowest * 1e3:.1f} ms")


def outgoing(lesson):
    with Lesson(10) as target, socket.create_server(("127.0.0.1", 0)) as mute:
        client = lesson.connect()
        round_trip(client, b"SET k v\r\n", 5)
        for what, port in (("to lesson 10", target.port), ("to a closed port", 1),
                           ("to a server that never replies", mute.getsockname()[1])):
            began = time.perf_counter()
            client.sendall(b"COPYTO %d k\r\n" % port)
            reply = client.recv(200).decode().strip()
            print(f"COPYTO {what}: {reply} after {(time.perf_counter() - began) * 1e3:.1f} ms")


def nested(lesson):
    waits, other = lesson.connect(), lesson.connect()
    waits.sendall(b"SPIN 10000\r\n")
    time.sleep(0.1)
    other.sendall(b"PING\r\n")
    reply = other.recv(100).decode().strip()
    took = round_trip(other, b"KILL\r\n", 5)
    spins = waits.recv(100).decode().strip()
    print(f"during SPIN, PING: {reply}; KILL took {took * 1e3:.1f} ms; SPIN ended with {spins}")


def snapshot(lesson):
    client = lesson.connect()
    value = b"v" * 1000

    def fill(sock, keys):
        for start in range(0, keys, 100):
            requests = b"".join(b"SET key:%d %s\r\n" % (k, value) for k in range(start, start + 100))
            round_trip(sock, requests, 500)
    fill(client, 20_000)
    for what, keys in (("idle", 0), ("while 20,000 keys are written", 20_000)):
        client.sendall(b"SAVE\r\n")
        fill(lesson.connect(), keys)
        pages = int(client.recv(100)[1:])
        print(f"SAVE, {what}: {pages:,} pages of 4 KB copied or mapped")
    os.unlink("lesson.snapshot")


SHOW = {1: [one_client], 2: [threads], 3: [cost_of_idle], 4: [cost_of_idle], 5: [lost_edge],
        6: [lost_edge, deaf_client], 7: [deaf_client], 8: [idle_client, latency_beside_a_hog],
        9: [latency_beside_a_hog], 10: [pipeline], 11: [worker], 12: [outgoing], 13: [nested],
        14: [snapshot]}


def main(arguments):
    numbers = list(SHOW) if arguments == ["all"] else [int(a) for a in arguments if a.isdigit()]
    if not numbers or any(n not in SHOW for n in numbers):
        print(__doc__.strip(), file=sys.stderr)
        return 2
    for number in numbers:
        for show in SHOW[number]:
            with Lesson(number) as lesson:
                print(f"{name_of(number)}: ", end="", flush=True)
                show(lesson)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
