"""A cache at its limit: hit ratio, CPU and latency under maxmemory.

    4 of 5 requests   GET a key, by Zipf's law; a miss is followed by a SET
    1 of 5 requests   SET

The values have 100 to 10,000 bytes (`cache.rs`). All keys together take four times the memory of
the limit. A server is filled until it evicts, then the servers take turns. A figure is better when
it is lower, and is judged as a ratio to the best peer of the run, turn by turn.
"""

import dataclasses

from .replication import Row
from .servers import ServerError

HEADING = "a cache of 200 MB"
LIMIT = "200mb"
KEYS = 400_000
FILL = 500_000               # requests, after which a server evicts as it will all the time
SETTINGS = (("maxmemory", LIMIT), ("maxmemory-samples", "5"))


@dataclasses.dataclass(frozen=True)
class Scene:
    policy: str
    rows: tuple

    @property
    def name(self):
        return self.rows[0].name


def scene(policy):
    figures = (("misses, %", "miss"), ("CPU, us", "cpu_us"), ("p50, us", "p50_us"),
               ("p99, us", "p99_us"), ("p99.9, us", "p999_us"))
    return Scene(policy, tuple(Row(f"cache, {policy}, {name}", field, 1.0)
                               for name, field in figures))


def scenes():
    return scene("allkeys-lru"), scene("allkeys-lfu")


def send(server, client, **options):
    return client.run(server, ("--cache",), keyspace=KEYS, **options)


def prepare(server, cache, client, fill=FILL):
    server.ask("FLUSHALL")
    for name, value in (*SETTINGS, ("maxmemory-policy", cache.policy)):
        server.ask("CONFIG", "SET", name, value)
    send(server, client, requests=fill)


def with_misses(result):
    """A turn's result with the share of reads that were misses, in percent."""
    if not result["reads"] or result["hits"] == result["reads"]:
        raise ServerError("no read was a miss: the keys fit into the memory")
    return {**result, "miss": 100 * (1 - result["hits"] / result["reads"])}


def measure(servers, cache, client, turns, seconds, note):
    """Results of a scene by server's name: a list of turns, or an error."""
    results = {}

    def attempt(server, what):
        if isinstance(results.get(server.name), str):
            return
        try:
            what()
        except (ServerError, OSError, KeyError) as e:
            results[server.name] = str(e) or repr(e)

    def take(server, number):
        result = send(server, client, seconds=seconds, seed=number + 2)
        results[server.name].append(with_misses(result))

    for server in servers:
        results[server.name] = []
        attempt(server, lambda: prepare(server, cache, client))
    for number in range(turns):
        for server in servers:
            attempt(server, lambda: take(server, number))
        note(f"{cache.name}: turn {number + 1} of {turns}")
    return results
