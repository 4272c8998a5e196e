"""What TLS costs: the same requests over TLS, and handshakes.

    server:   --port N (asked and filled)   --tls-port M (measured)   one certificate for all, RSA 2048

A server without TLS has a reason in place of figures. Each figure is judged as a ratio to the best
peer of the run, turn by turn; lower is better.
"""

import contextlib
import dataclasses
import json
import os
import shutil
import subprocess
import tempfile

from . import measure
from .measure import Client
from .servers import Fleet, Server, ServerError, free_port, pin
from .workloads import STRINGS, VALUE, Workload, words

HANDSHAKES = 5000
AT_ONCE = 100                # handshakes in progress
STORM_SECONDS = 300          # no storm takes longer

WORKLOADS = (
    Workload("TLS SET P1", 1, words(f"SET key:{{key}} {VALUE}"), STRINGS, of_best=1.0),
    Workload("TLS GET P1", 1, words("GET key:{key}"), STRINGS, of_best=1.0),
    Workload("TLS SET P64", 64, words(f"SET key:{{key}} {VALUE}"), STRINGS, of_best=1.0),
    Workload("TLS GET P64", 64, words("GET key:{key}"), STRINGS, of_best=1.0),
)


@dataclasses.dataclass(frozen=True)
class Row:
    """A figure of the storm: its name, the field of a turn's result, its limit."""
    name: str
    field: str
    of_best: float = 1.0
    reference: tuple = ()


STORM = (
    Row("TLS handshake, us", "handshake"),
    Row("GET p99 in a storm, us", "p99"),
    Row("GET p50 in a storm, us", "p50"),
)
NAME = "TLS storm"


def certificate(folder):
    """A certificate that is its own authority, and its key."""
    paths = [os.path.join(folder, name) for name in ("tls.crt", "tls.key")]
    done = subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "10",
         "-subj", "/CN=bench", "-out", paths[0], "-keyout", paths[1]],
        stdin=subprocess.DEVNULL, capture_output=True)
    if done.returncode:
        raise ServerError(f"openssl: {done.stderr.decode('utf-8', 'replace').strip()[-200:]}")
    return paths


class TlsServer(Server):
    """A server with a port for TLS beside its plain one."""

    def __init__(self, name, command, core, files):
        super().__init__(name, command, core)
        self.files, self.tls_port = files, None

    def arguments(self):
        port, args = super().arguments()
        self.tls_port = free_port()
        crt, key = self.files
        return port, [*args, "--tls-port", str(self.tls_port), "--tls-cert-file", crt,
                      "--tls-key-file", key, "--tls-ca-cert-file", crt,
                      "--tls-auth-clients", "no"]


class TlsClient(Client):
    """The load generator over TLS; data sets are filled without it."""

    plain = False

    def command(self, server, command, **options):
        args, command = super().command(server, command, **options)
        if not self.plain:
            args[args.index("--port") + 1] = str(server.tls_port)
            args.append("--tls")
        return args, command

    def fill(self, server, fill):
        self.plain = True
        try:
            return super().fill(server, fill)
        finally:
            self.plain = False

    def storm(self, server, handshakes):
        """Handshakes, as many as are wanted; returns the seconds they took."""
        done = subprocess.run(
            [self.program, "--port", str(server.tls_port), "--clients", str(AT_ONCE),
             "--handshakes", str(handshakes)], stdin=subprocess.DEVNULL, capture_output=True,
            preexec_fn=pin(self.core), text=True, timeout=STORM_SECONDS)
        if done.returncode:
            raise ServerError(done.stderr.strip())
        return json.loads(done.stdout)["seconds"]


class TlsFleet(Fleet):
    """All servers of a run, with one certificate."""

    def __init__(self, specs, core):
        self.folder = tempfile.mkdtemp(prefix="bench-tls-")
        files = certificate(self.folder)
        self.servers = [TlsServer(name, command, core, files) for name, command in specs]

    def __exit__(self, *error):
        super().__exit__(*error)
        shutil.rmtree(self.folder, ignore_errors=True)


@contextlib.contextmanager
def started(specs, core):
    """The servers that start with TLS, and the reason of each other."""
    with TlsFleet(specs, core) as servers:
        able, reasons = [], {}
        for server in servers:
            try:
                server.start()
                with_tls(server)
                able.append(server)
            except (ServerError, OSError) as e:
                reasons[server.name] = str(e)
        yield servers, able, reasons


def with_tls(server):
    """Raises if the server has no TLS: some ignore the settings."""
    if not server.ask("CONFIG", "GET", "tls-port"):
        raise ServerError("it has no TLS")


def storm_turn(server, client, clients):
    """The CPU of a handshake alone, then what existing clients see of a storm."""
    before = server.cpu_ns()
    client.storm(server, HANDSHAKES)
    handshake = (server.cpu_ns() - before) / 1000 / HANDSHAKES
    existing = TlsClient(client.program, client.core, clients)
    during = existing.run(server, words("GET key:{key}"), lambda: client.storm(server, HANDSHAKES),
                          pipeline=1, seconds=STORM_SECONDS)
    return {"handshake": handshake, "p99": during["p99_us"], "p50": during["p50_us"]}


def measure_storm(servers, client, turns, note, clients=10):
    """Results by server's name: a list of turns, or an error."""
    results = {server.name: [] for server in servers}
    for number in range(turns):
        for server in servers:
            if isinstance(results[server.name], str):
                continue
            try:
                results[server.name].append(storm_turn(server, client, clients))
            except (ServerError, OSError, subprocess.TimeoutExpired) as e:
                results[server.name] = str(e)
        note(f"{NAME}: turn {number + 1} of {turns}")
    return results


def run(specs, cores, chosen, report, o, note):
    """Measures the chosen of WORKLOADS and STORM; returns their results by name."""
    results = {}
    client = TlsClient(o.load, cores[1], o.clients)
    with started(specs, cores[0]) as (servers, able, reasons):
        report.servers = servers
        report.heading("TLS, us")
        for item in chosen:
            if isinstance(item, Workload):
                found = measure.measure(able, item, client, o.turns, o.seconds, note)
                rows = [(item, "cpu_us")]
            else:
                found = measure_storm(able, client, o.turns, note)
                rows = [(row, row.field) for row in STORM]
            results[item.name] = found | reasons
            note("")
            for row, field in rows:
                report.workload(row, results[item.name], field)
    return results


class Storm:
    """The storm as one item that can be chosen."""
    name = NAME


ITEMS = (*WORKLOADS, Storm)
