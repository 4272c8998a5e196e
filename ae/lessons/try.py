#!/usr/bin/env python3
"""Show what a lesson lacks and how the next one mends it, as a figure of each.

    python3 ae/lessons/try.py 6          lesson 5 and lesson 6
    python3 ae/lessons/try.py all        each lesson and the one before it

The lessons are built, started on free ports and ended afterwards. The figures are counts, bytes and
ratios, which hardly depend on the machine; further lines have times, which do. The exit status is 1 if
a figure does not show the difference.
"""

import argparse
import collections
import contextlib
import glob
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
PORTION = 64 * 1024
MANY = 1000


def name_of(number):
    return os.path.basename(glob.glob(f"{HERE}/{number:02}_*.rs")[0])[:-3]


class Lesson:
    """The program of a lesson, as a process with a folder of its own."""

    programs = None

    def __init__(self, number):
        self.number = number
        self.folder = tempfile.mkdtemp(prefix="lesson-")
        program = os.path.join(Lesson.programs or self.build(), name_of(number))
        self.proc = subprocess.Popen([program, "0"], stdout=subprocess.PIPE, text=True, cwd=self.folder)
        lines = [self.proc.stdout.readline() for _ in range(1 if number < 9 else 2)]
        ports = {"operator" in line: int(re.search(r":(\d+)", line)[1]) for line in lines}
        self.port, self.operator = ports[False], ports.get(True)

    def build(self):
        name = name_of(self.number)
        target = os.environ.get("CARGO_TARGET_DIR", "target")
        folder = os.path.join(ROOT, target, "release", "examples")
        if not os.path.exists(os.path.join(folder, name)):
            print(f"(building {name})", file=sys.stderr, flush=True)
        command = ["cargo", "build", "--quiet", "--release", "-p", "ae", "--example", name]
        subprocess.run(command, cwd=ROOT, check=True)
        return folder

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.proc.kill()
        self.proc.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def connect(self, port=None):
        return socket.create_connection(("127.0.0.1", port or self.port))

    def served(self, count):
        """Clients that the server has accepted."""
        clients = [self.connect() for _ in range(count)]
        for client in clients:
            client.sendall(b"PING\r\n")
        for client in clients:
            receive(client, 6)
            client.settimeout(0)
            with contextlib.suppress(BlockingIOError):
                client.recv(100)               # the last byte of +PONG
            client.settimeout(None)
        return clients

    def status(self, field):
        with open(f"/proc/{self.proc.pid}/status") as f:
            return int(re.search(rf"^{field}:\s+(\d+)", f.read(), re.M)[1])

    def wait_until_it_sleeps(self):
        """Waits until the program has nothing to do, and sleeps in its poll."""
        while self.state() != "S":
            time.sleep(0.001)

    def state(self):
        with open(f"/proc/{self.proc.pid}/stat") as f:
            return f.read().rsplit(")", 1)[1].split()[0]

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


def receive_line(sock):
    line = bytearray()
    while not line.endswith(b"\n"):
        byte = receive(sock, 1)
        if not byte:
            break
        line += byte
    return bytes(line)


def round_trip(sock, request=b"PING\r\n", size=6):
    began = time.perf_counter()
    sock.sendall(request)
    receive(sock, size)
    return time.perf_counter() - began


# --- What each lesson mends: a figure of the lesson before, and of the lesson ---

def served_beside_an_idle_one(lesson):
    idle = lesson.connect()
    clients = [lesson.connect() for _ in range(10)]
    for client in clients:
        client.sendall(b"x")
    deadline = time.monotonic() + 2
    waiting = clients
    while waiting and (left := deadline - time.monotonic()) > 0:
        ready = select.select(waiting, [], [], left)[0]
        waiting = [client for client in waiting if client not in ready]
    idle.close()
    return len(clients) - len(waiting)


def threads_of_idle_clients(lesson):
    clients = [lesson.connect() for _ in range(MANY)]
    round_trip(clients[-1])
    return lesson.status("Threads")


def cpu_of_a_request(lesson, client):
    before = lesson.cpu()
    for _ in range(1000):
        round_trip(client)
    return (lesson.cpu() - before) / 1000


def cost_beside_idle_clients(lesson):
    client = lesson.connect()
    alone = cpu_of_a_request(lesson, client)
    idle = [lesson.connect() for _ in range(MANY)]
    round_trip(idle[-1])
    return cpu_of_a_request(lesson, client) / alone


def bytes_of_a_portion(lesson):
    sock = lesson.connect()
    round_trip(sock)
    # The program is stopped meanwhile, so that it finds all bytes at once: one edge.
    lesson.proc.send_signal(signal.SIGSTOP)
    sock.sendall(bytes(PORTION))
    time.sleep(0.1)
    lesson.proc.send_signal(signal.SIGCONT)
    return len(receive(sock, PORTION, 1))


DEAF_BYTES = 32 << 20


def bytes_read_late(lesson):
    sock = lesson.connect()
    writer = threading.Thread(target=sock.sendall, args=(bytes(DEAF_BYTES),), daemon=True)
    writer.start()
    time.sleep(1)                              # nothing is read
    return len(receive(sock, DEAF_BYTES, 1))


def connected_although_idle(lesson):
    clients = lesson.served(100)
    began = time.monotonic()
    connected = clients
    while connected and time.monotonic() - began < (12 if len(connected) == 100 else 30):
        closed = select.select(connected, [], [], 1)[0]
        connected = [client for client in connected if client not in closed]
    return len(connected)


def megabytes_before_another(lesson):
    """The server is stopped while ten clients fill their sockets and an eleventh sends PING behind them. What
    the ten have got back when the eleventh has its reply was moved before it."""
    full, other = lesson.served(10), lesson.served(1)[0]
    os.setpriority(os.PRIO_PROCESS, lesson.proc.pid, 19)   # so that it can be stopped soon enough
    lesson.wait_until_it_sleeps()              # not in the middle of a handler, which would read the PING first
    lesson.proc.send_signal(signal.SIGSTOP)
    for sock in full:
        sock.settimeout(0)
        with contextlib.suppress(BlockingIOError):
            while True:
                sock.send(bytes(1 << 20))
    other.sendall(b"PING\r\n")
    lesson.proc.send_signal(signal.SIGCONT)
    receive(other, 6)
    lesson.proc.send_signal(signal.SIGSTOP)
    return sum(len(receive(sock, 1 << 30, 0.1)) for sock in full) / 1e6


def replies_to_portions(lesson):
    sock = lesson.connect()
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    replies = 0
    for byte in b"PING\r\n":
        sock.sendall(bytes([byte]))
        replies += bool(receive(sock, 100, 0.5))
    return replies


def pings_beside(request):
    def count(lesson):
        waits, other = lesson.served(2)
        waits.sendall(request)
        time.sleep(0.05)                       # it has begun
        pings = 0
        while True:
            other.sendall(b"PING\r\n")
            receive_line(other)
            if select.select([waits], [], [], 0)[0]:
                return pings
            pings += 1
    return count


def bytes_through_the_client(lesson):
    value = b"v" * 100_000
    size = len(value)
    with Lesson(10) as target:
        client, other = lesson.connect(), target.connect()
        round_trip(client, b"SET k %s\r\n" % value, 5)
        request = b"COPYTO %d k\r\n" % target.port
        client.sendall(request)
        reply = receive_line(client)
        passed = len(request) + len(reply)
        if reply != b"+OK\r\n":                # the client must do it
            head = b"$%d\r\n" % size
            passed = len(b"GET k\r\n") + len(head) + size + 2
            client.sendall(b"GET k\r\n")
            receive(client, len(head) + size + 2)
            request = b"SET k %s\r\n" % value
            round_trip(other, request, 5)
            passed += len(request) + 5
        other.sendall(b"GET k\r\n")
        copied = receive(other, len(b"$%d\r\n" % size) + size + 2)
        assert value in copied, "the value was not copied"
    return passed


KEYS = 20_000


def write_keys(sock, value, keys=KEYS):
    for start in range(0, keys, 100):
        requests = b"".join(b"SET %d %s\r\n" % (key, value) for key in range(start, start + 100))
        round_trip(sock, requests, 500)


def read_keys(sock, keys):
    for start in range(keys.start, keys.stop, 100):
        sock.sendall(b"".join(b"GET %d\r\n" % key for key in range(start, start + 100)))
        for _ in range(100):
            receive_line(sock)
            yield receive_line(sock).strip()


def keys_of_a_later_time(lesson):
    client, writer = lesson.served(2)
    write_keys(writer, b"before")
    client.sendall(b"SAVE\r\n")
    snapshot = os.path.join(lesson.folder, "lesson.snapshot")
    while not os.path.exists(snapshot) and not select.select([client], [], [], 0.001)[0]:
        pass
    if os.path.exists(snapshot):               # the child has begun
        write_keys(writer, b"after")
        assert receive_line(client).startswith(b":")
        with open(snapshot, "rb") as f:
            values = [line.split()[1] for line in f]
    else:                                      # no SAVE: the client reads key after key
        receive_line(client)
        values = list(read_keys(client, range(KEYS // 2)))
        write_keys(writer, b"after")
        values += read_keys(client, range(KEYS // 2, KEYS))
    assert len(values) == KEYS
    return values.count(b"after")


Step = collections.namedtuple("Step", "measure says cured")
MORE, FEWER = (lambda before, after: after > 2 * before), (lambda before, after: 2 * after < before)

# For each lesson from the second on: figure, sentence, and how the lesson changes it. Lesson
# 5 makes a fault, which lesson 6 mends.
STEPS = {
    2: Step(served_beside_an_idle_one, "beside an idle client, {:,} of 10 others get a reply", MORE),
    3: Step(threads_of_idle_clients, "threads for 1,000 idle clients: {:,}", FEWER),
    4: Step(cost_beside_idle_clients, "beside 1,000 idle clients, a request costs {:.1f} times the CPU", FEWER),
    5: Step(bytes_of_a_portion, "of 65,536 bytes that were sent at once, {:,} came back", FEWER),
    6: Step(bytes_of_a_portion, "of 65,536 bytes that were sent at once, {:,} came back", MORE),
    7: Step(bytes_read_late, "of 33,554,432 bytes that are read late, {:,} came back", MORE),
    8: Step(connected_although_idle, "of 100 clients that have sent nothing for 12 s, {:,} are connected", FEWER),
    9: Step(megabytes_before_another, "behind ten clients with full sockets, a PING is answered after {:.1f} MB", FEWER),
    10: Step(replies_to_portions, "replies to one request that comes in 6 portions: {:,}", FEWER),
    11: Step(pings_beside(b"PRIMES 1000000\r\n"), "while PRIMES computes, {:,} PINGs of another client are answered", MORE),
    12: Step(bytes_through_the_client, "to copy 100,000 bytes to another server, {:,} pass through the client", FEWER),
    13: Step(pings_beside(b"SPIN 1000\r\n"), "while SPIN works, {:,} PINGs of another client are answered", MORE),
    14: Step(keys_of_a_later_time, "in a copy of 20,000 keys, {:,} are of a later time than the first", FEWER),
}


# --- Further figures, of one lesson: times and sizes of this machine ---

def one_client(lesson):
    first, second = lesson.connect(), lesson.connect()
    second.sendall(b"x")
    waits = receive(second, 1, 0.5) == b""
    first.close()
    yield (f"a second client: {'no reply within 0.5 s' if waits else 'a reply'}; "
           f"after the first has closed: {receive(second, 1).decode()!r}")


def memory_of_threads(lesson):
    idle = [lesson.connect() for _ in range(MANY)]
    round_trip(idle[-1])
    yield (f"1,000 idle clients: {lesson.status('Threads'):,} threads, "
           f"{lesson.status('VmRSS'):,} KB resident, {lesson.status('VmSize') // 1024:,} MB reserved")


def growth_beside_a_deaf_client(lesson):
    before = lesson.status("VmRSS")
    bytes_read_late(lesson)
    yield f"the server grew by {max(lesson.status('VmRSS') - before, 0):,} KB"


def hog(lesson, over):
    """A client that sends and reads as fast as it can."""
    sock = lesson.connect()

    def send():
        with contextlib.suppress(OSError):
            while not over.is_set():
                sock.sendall(bytes(1 << 20))

    def read():
        with contextlib.suppress(OSError):
            while sock.recv(1 << 20):
                pass
    for work in (send, read):
        threading.Thread(target=work, daemon=True).start()
    return sock


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
        yield (f"beside two clients that never stop, {label} waits {times[25] * 1e3:.2f} ms "
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
        yield f"CPU for each PING, {depth} in a pipeline: {(lesson.cpu() - before) / 20_000 * 1e6:.2f} us"


def worker(lesson):
    waits, other = lesson.connect(), lesson.connect()
    began = time.perf_counter()
    waits.sendall(b"PRIMES 3000000\r\n")
    slowest = max(round_trip(other, size=7) for _ in range(200))
    reply = receive(waits, 9).decode().strip()
    yield (f"PRIMES {reply} after {time.perf_counter() - began:.2f} s; "
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
            yield f"COPYTO {what}: {reply} after {(time.perf_counter() - began) * 1e3:.1f} ms"


def nested(lesson):
    waits, other = lesson.connect(), lesson.connect()
    waits.sendall(b"SPIN 10000\r\n")
    time.sleep(0.1)
    other.sendall(b"PING\r\n")
    reply = other.recv(100).decode().strip()
    took = round_trip(other, b"KILL\r\n", 5)
    spins = waits.recv(100).decode().strip()
    yield f"during SPIN, PING: {reply}; KILL took {took * 1e3:.1f} ms; SPIN ended with {spins}"


def snapshot_pages(lesson):
    client = lesson.connect()
    write_keys(client, b"v" * 1000)
    for what, keys in (("idle", 0), ("while 20,000 keys are written", KEYS)):
        client.sendall(b"SAVE\r\n")
        write_keys(lesson.connect(), b"w" * 1000, keys)
        yield f"SAVE, {what}: {int(client.recv(100)[1:]):,} pages of 4 KB copied or mapped"


FURTHER = {1: one_client, 2: memory_of_threads, 7: growth_beside_a_deaf_client, 8: latency_beside_a_hog,
           9: latency_beside_a_hog, 10: pipeline, 11: worker, 12: outgoing, 13: nested, 14: snapshot_pages}


def show(number):
    """Returns whether the figures show what the lesson changes."""
    step, figures = STEPS.get(number), []
    for at in (number - 1, number) if step else ():
        with Lesson(at) as lesson:
            print(f"{name_of(at)}: ", end="", flush=True)
            figures.append(step.measure(lesson))
            print(step.says.format(figures[-1]), flush=True)
    return not step or step.cured(*figures)


def show_further(number):
    if number in FURTHER:
        with Lesson(number) as lesson:
            for line in FURTHER[number](lesson):
                print(f"{name_of(number)}: {line}", flush=True)


def main():
    about, _, notes = __doc__.partition("\n\n")
    parser = argparse.ArgumentParser(description=about, epilog=notes,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    lessons = [str(number) for number in range(1, max(STEPS) + 1)]
    parser.add_argument("lessons", nargs="+", metavar="LESSON", choices=["all", *lessons],
                        help=f"1 to {max(STEPS)}, or all")
    parser.add_argument("--programs", metavar="FOLDER",
                        help="the lessons are built already, by `cargo build -p ae --examples`")
    parser.add_argument("--short", action="store_true", help="without the further lines")
    options = parser.parse_args()
    if options.programs:
        Lesson.programs = os.path.abspath(options.programs)
    status = 0
    for number in map(int, lessons if "all" in options.lessons else options.lessons):
        if not show(number):
            print(f"{name_of(number)}: the figures do not show the difference", flush=True)
            status = 1
        if not options.short:
            show_further(number)
    return status


if __name__ == "__main__":
    sys.exit(main())
