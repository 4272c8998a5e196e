"""CPU for each request, the servers taking turns.

    for each workload:   fill every server
        for each turn:   A, B, C,  A, B, C, ...

The machines are shared and their clocks wander, so figures are only compared
within one run: a ratio is the median over the turns of two servers' figures in
the same turn.
"""

import contextlib
import json
import os
import statistics
import subprocess

from .servers import ServerError, pin

LOAD_SECONDS = 300           # no fill takes longer


class Client:
    """The load generator on its own core."""

    def __init__(self, program, core, clients):
        self.program, self.core, self.clients = program, core, clients

    def command(self, server, command, **options):
        args = [self.program, "--port", str(server.port), "--clients", str(self.clients)]
        for name, value in options.items():
            args += [f"--{name}", str(value)]
        return args, list(command)

    def run(self, server, command, during=None, **options):
        """Send requests, with the server's CPU time around them: the result of
        load.rs, with cpu_us for each request. With `during` they are sent until it returns."""
        options, command = self.command(server, command, **options)
        options += ["--wait", "--until-eof"] if during else ["--wait"]
        proc = subprocess.Popen([*options, *command], stdin=subprocess.PIPE,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                preexec_fn=pin(self.core), text=True)
        try:
            if proc.stdout.readline() != "ready\n":
                raise ServerError(proc.communicate(timeout=5)[1].strip())
            before = server.cpu_ns()
            if during:
                proc.stdin.write("\n")
                proc.stdin.flush()
                during()
            out, err = proc.communicate("\n", timeout=LOAD_SECONDS)
            after = server.cpu_ns()
        except subprocess.TimeoutExpired:
            raise ServerError("the load did not end") from None
        finally:
            if proc.poll() is None:
                proc.kill()
                proc.wait()
        if proc.returncode != 0:
            raise ServerError(err.strip())
        result = json.loads(out)
        if result["errors"]:
            raise ServerError(result["first_error"])
        result["cpu_us"] = (after - before) / 1000 / result["requests"]
        result["per_second"] = result["requests"] / result["seconds"]
        result["wall_us"] = 1e6 / result["per_second"]
        return result

    @contextlib.contextmanager
    def listening(self, server, command, count):
        """Meanwhile `count` connections have sent the command and read what comes."""
        proc = subprocess.Popen([self.program, "--port", str(server.port), "--clients", str(count),
                                 "--listen", *command], stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, preexec_fn=pin(self.core), text=True)
        try:
            if proc.stdout.readline() != "ready\n":
                raise ServerError(proc.communicate(timeout=5)[1].strip())
            yield
            if proc.poll() is not None:
                raise ServerError(proc.stderr.read().strip())
        finally:
            proc.kill()
            proc.communicate()

    def fill(self, server, fill):
        pipeline = min(64, fill.count)
        clients, self.clients = self.clients, min(self.clients, fill.count)
        try:
            return self.run(server, fill.command, requests=fill.count, pipeline=pipeline)
        finally:
            self.clients = clients


def cores():
    """(server, client): a core for each, or None for both where that can't be."""
    if not hasattr(os, "sched_getaffinity"):
        return None, None
    allowed = sorted(os.sched_getaffinity(0))
    return (allowed[0], allowed[1]) if len(allowed) > 1 else (None, None)


def prepare(server, workload, client):
    with contextlib.suppress(ServerError):
        server.ask("FLUSHALL")         # a server without data doesn't know it
    for fill in workload.fill:
        client.fill(server, fill)


def turn(server, workload, client, seconds, seed, during=None):
    if workload.key:
        server.ask("DEL", workload.key)
    if workload.refill:
        client.fill(server, workload.refill)
    limit = {"requests": workload.limit} if workload.limit else {}
    with (client.listening(server, workload.listen, workload.listeners)
          if workload.listeners else contextlib.nullcontext()):
        return client.run(server, workload.command, during, pipeline=workload.pipeline,
                          seconds=seconds, keyspace=workload.keyspace, seed=seed, **limit)


def measure(servers, workload, client, turns, seconds, note):
    """Results of a workload by server's name: a list of turns, or an error."""
    results = {}
    for server in servers:
        try:
            prepare(server, workload, client)
            results[server.name] = []
        except (ServerError, OSError) as e:
            results[server.name] = str(e)
    for number in range(turns):
        for server in servers:
            if isinstance(results[server.name], str):
                continue
            try:
                result = turn(server, workload, client, seconds, number + 1)
                results[server.name].append(result)
            except (ServerError, OSError) as e:
                results[server.name] = str(e)
        note(f"{workload.name}: turn {number + 1} of {turns}")
    return results


def median(turns, field="cpu_us"):
    return statistics.median(t[field] for t in turns)


def ratio(turns, others, field="cpu_us"):
    """How one server stands to another, turn by turn."""
    return statistics.median(a[field] / b[field] for a, b in zip(turns, others))
