"""What replication costs: a primary with replicas of its own kind, beside the peers'.

    group of a server:   primary on the first core       replicas and load on the second
                         |
                         +-- replica 1, 2, 3

    for each scene, for each turn:   group A, group B, ...

A figure of every scene is better when it is lower, and is judged as a ratio to the best peer of
the run, turn by turn; what is a ratio itself (p99 to idle) has a limit of its own. A full synchronisation is made within a scene and never counted with
another scene's figure.
"""

import contextlib
import dataclasses
import re
import threading
import time

from .measure import prepare
from .servers import Fleet, ServerError
from .workloads import KEYS, STRINGS, VALUE, Workload, fill, words

REPLICAS = 3
SYNC_KEYS = 5_000_000
SYNC_SECONDS = 300           # no full synchronisation takes longer
CAUGHT_UP_SECONDS = 120
PEAK_SECONDS = 0.1           # between two samples of the memory
MISSED_WRITES = 3_000_000    # while a replica is stopped
# A full synchronisation begins at once, and nothing is too much to keep for a replica.
PRIMARY = (("repl-diskless-sync-delay", "0"), ("repl-backlog-size", "1gb"),
           ("client-output-buffer-limit", "replica 0 0 0"))

SET = Workload("SET", 64, words(f"SET key:{{key}} {VALUE}"), STRINGS)
WAIT = Workload("WAIT", 1, words(f"SET key:{{key}} {VALUE} ; WAIT 1 10000"), STRINGS)


@dataclasses.dataclass(frozen=True)
class Row:
    """One figure of a scene: its name, the field of a turn's result, its limit."""
    name: str
    field: str
    of_best: float = 0.0         # the limit as a ratio to the best peer of the run
    at_most: float = 0.0         # or the limit of the figure itself
    reference: tuple = ()


@dataclasses.dataclass(frozen=True)
class Scene:
    rows: tuple
    prepare: object              # functions of (group, client)
    turn: object                 # gives a dictionary of the rows' fields
    turns: int = 0               # its own number of turns, if it takes long

    @property
    def name(self):
        return self.rows[0].name


class Group:
    """A primary and its replicas."""

    def __init__(self, primary, replicas):
        self.name, self.kind = primary.name, primary.kind
        self.primary, self.replicas = primary, replicas

    def start(self):
        for server in (self.primary, *self.replicas):
            server.start()
        for name, value in PRIMARY:
            self.primary.ask("CONFIG", "SET", name, value)

    def stop(self):
        for server in (self.primary, *self.replicas):
            server.stop()

    def attach(self, count):
        """The first `count` replicas replicate, the others don't; waits until all have all."""
        for number, replica in enumerate(self.replicas):
            if number >= count:
                replica.ask("REPLICAOF", "NO", "ONE")
            elif info(replica, "replication")["role"] == "master":
                replica.ask("REPLICAOF", "127.0.0.1", self.primary.port)
        self.wait(self.replicas[:count], CAUGHT_UP_SECONDS)

    def wait(self, replicas, seconds, pause=0.01):
        """Until the replicas have all that the primary has; returns the seconds."""
        began = time.monotonic()
        while time.monotonic() - began < seconds:
            target = int(info(self.primary, "replication")["master_repl_offset"])
            if all(applied(r) >= target for r in replicas):
                return time.monotonic() - began
            time.sleep(pause)
        raise ServerError("a replica does not catch up")


def info(server, section):
    text = server.ask("INFO", section).decode()
    return dict(re.findall(r"^(\w+):(.*?)\r?$", text, re.M))


def applied(replica):
    """The offset up to which a replica has the stream; -1 without a link or while it loads."""
    fields = info(replica, "replication")
    if fields.get("master_link_status") != "up":
        return -1
    return int(fields["slave_repl_offset"])


def write(group, client, seconds, seed, replicas):
    """SETs for `seconds`, until the replicas have them: CPU for each request, of the primary and
    of the first replica."""
    servers = [group.primary, *group.replicas[:1]]
    before = [s.cpu_ns() for s in servers]
    result = client.run(group.primary, SET.command, pipeline=SET.pipeline, seconds=seconds,
                        keyspace=SET.keyspace, seed=seed)
    group.wait(group.replicas[:replicas], CAUGHT_UP_SECONDS)
    return [(s.cpu_ns() - b) / 1000 / result["requests"] for s, b in zip(servers, before)]


def strings(group, client):
    group.attach(0)
    prepare(group.primary, SET, client)


def write_turn(group, client, seconds, seed):
    group.attach(1)
    one, apply = write(group, client, seconds, seed, 1)
    return {"one": one, "apply": apply}


def more_turn(group, client, seconds, seed):
    """One replica, all, all, one: what drifts in between is in both sums."""
    cost = []
    for replicas in (1, REPLICAS, REPLICAS, 1):
        group.attach(replicas)
        cost.append(write(group, client, seconds, seed, replicas)[0])
    return {"more": each_more(cost)}


def each_more(cost):
    """What a replica beyond the first adds to the cost of a request."""
    first, all_of_them, again, last = cost
    more = (all_of_them + again - first - last) / 2 / (REPLICAS - 1)
    if more <= 0:
        raise ServerError("more replicas cost less: noise, or a turn that is too short")
    return more


def wait_turn(group, client, seconds, seed):
    group.attach(1)
    result = client.run(group.primary, WAIT.command, pipeline=1, seconds=seconds,
                        keyspace=WAIT.keyspace, seed=seed)
    return {"p50": result["p50_us"], "p99": result["p99_us"]}


def catch_up_turn(group, client, _seconds, seed):
    """A replica's link is cut and the replica is stopped while the primary writes on."""
    group.attach(1)
    replica = group.replicas[0]
    full = info(group.primary, "stats")["sync_full"]
    with replica.stopped():
        group.primary.ask("CLIENT", "KILL", "TYPE", "replica")
        client.run(group.primary, SET.command, pipeline=SET.pipeline, requests=MISSED_WRITES,
                   keyspace=SET.keyspace, seed=seed)
    seconds = group.wait([replica], CAUGHT_UP_SECONDS, 0.002)
    if info(group.primary, "stats")["sync_full"] != full:
        raise ServerError("it was no partial resynchronisation")
    return {"catch_up": seconds}


def many_keys(keys):
    def prepared(group, client):
        group.attach(0)
        prepare(group.primary, Workload("", 64, (), (fill(keys, f"SET key:{{seq}} {VALUE}"),)),
                client)
    return prepared


class Peak:
    """The largest figure that a function gives while the context lasts."""

    def __init__(self, figure):
        self.figure, self.largest, self.over = figure, 0, threading.Event()
        self.thread = threading.Thread(target=self.sample)

    def sample(self):
        while not self.over.is_set():
            self.largest = max(self.largest, self.figure())
            self.over.wait(PEAK_SECONDS)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()


def sync_turn(keys):
    def turn(group, client, seconds, seed):
        """Three full synchronisations while clients write.

        The first is for the time, and the second for the memory: reading the pages' owners takes
        milliseconds of kernel time on the servers' processors. The third is for the clients, whose
        p99 is compared with that of the same clients without a synchronisation. Its replica has
        the lowest priority: it would be on another machine, but runs on the clients' processor."""
        replica, yielding = group.replicas[:2]
        options = {"pipeline": 1, "keyspace": keys, "seed": seed}

        def detach():
            group.attach(0)
            replica.ask("FLUSHALL")

        def synchronise(replica):
            detach()
            spent = []

            def attach():
                began = time.monotonic()
                replica.ask("REPLICAOF", "127.0.0.1", group.primary.port)
                group.wait([replica], SYNC_SECONDS)
                spent.append(time.monotonic() - began)

            busy = client.run(group.primary, SET.command, attach, seconds=SYNC_SECONDS, **options)
            if replica.ask("DBSIZE") != keys:
                raise ServerError("the replica has not all keys")
            return spent[0], busy["p99_us"]

        spent, _ = synchronise(replica)
        used = group.primary.memory_with_children()
        with Peak(group.primary.memory_with_children) as peak:
            synchronise(replica)
        detach()
        idle = client.run(group.primary, SET.command, seconds=seconds, **options)
        yielding.lower_priority()
        _, p99 = synchronise(yielding)
        return {"sync": spent, "p99": p99 / idle["p99_us"], "memory": peak.largest / used}
    return turn


def scenes(keys=SYNC_KEYS):
    return (
        Scene((Row("SET P64, one replica, us", "one", 0.70),
               Row("a SET on the replica, us", "apply", 0.77)), strings, write_turn),
        Scene((Row("each more replica, us", "more", 0.50),), strings, more_turn),
        Scene((Row("SET and WAIT 1, p50 us", "p50", 1.0),
               Row("SET and WAIT 1, p99 us", "p99", 1.0)), strings, wait_turn),
        Scene((Row("catch-up, s", "catch_up", 1.0),), strings, catch_up_turn),
        Scene((Row("full sync, s", "sync", 0.80),
               Row("full sync, p99 to idle", "p99", at_most=2.0),
               Row("full sync, memory to idle", "memory", 1.0)), many_keys(keys), sync_turn(keys), 1),
    )


@contextlib.contextmanager
def groups(specs, server_core, client_core):
    """A group for each server; all are ended at the end."""
    with contextlib.ExitStack() as stack:
        primaries = stack.enter_context(Fleet(specs, server_core))
        fleets = [stack.enter_context(Fleet(specs, client_core)) for _ in range(REPLICAS)]
        yield [Group(primary, [fleet[n] for fleet in fleets])
               for n, primary in enumerate(primaries)]


def measure(members, scene, client, turns, seconds, note):
    """Results of a scene by server's name: a list of turns, or an error. One group runs at a
    time where a scene has many keys; else all of them do, and take turns."""
    results = {group.name: [] for group in members}

    def attempt(group, what, *arguments):
        if isinstance(results[group.name], str):
            return None
        try:
            return what(group, client, *arguments)
        except (ServerError, OSError, KeyError) as e:
            results[group.name] = str(e) or repr(e)
            return None

    def take(group, number):
        result = attempt(group, scene.turn, seconds, number + 1)
        if result is not None:
            results[group.name].append(result)
        note(f"{scene.name}: {group.name}, turn {number + 1}")

    def begin(group):
        attempt(group, lambda *_: group.start())
        attempt(group, scene.prepare)

    if scene.turns:
        for group in members:
            begin(group)
            for number in range(scene.turns):
                take(group, number)
            group.stop()
        return results
    for group in members:
        begin(group)
    for number in range(turns):
        for group in members:
            take(group, number)
    for group in members:
        group.stop()
    return results
