"""The workloads and their budgets, as data.

In a command `{key}` stands for a random number of 12 digits below the keyspace
and `{seq}` for a counter (see load.rs). A budget is in microseconds of CPU for
each request, or bytes of used_memory for each element, on the machine where the
reference figures were taken; it holds as a ratio, so what is compared is
budget / reference with measured / measured. Where there are no such figures, the
budget is a ratio to the best peer of the run.

A request may be several commands, `;` between them.
"""

import dataclasses

VALUE = "0123456789abcdef"          # 16 bytes
KEYS = 1_000_000
PEERS = ("valkey-9.1", "redis-8.2", "redis-7.0")


@dataclasses.dataclass(frozen=True)
class Fill:
    """Requests that bring data in before the measurement."""
    count: int
    command: tuple


@dataclasses.dataclass(frozen=True)
class Workload:
    name: str
    pipeline: int
    command: tuple
    fill: tuple = ()                 # once for each server, after FLUSHALL
    refill: Fill | None = None       # before each turn, after DEL of `key`
    key: str = ""
    keyspace: int = KEYS
    limit: int = 0                   # requests in a turn, at most
    listeners: int = 0               # connections that sent `listen` and read what comes
    listen: tuple = ()
    reference: tuple = ()            # CPU of PEERS, in their order
    budget: float = 0.0
    of_best: float = 0.0             # the budget as a ratio to the best peer


@dataclasses.dataclass(frozen=True)
class Elements:
    """A data set of a million elements; `per` elements for each request."""
    name: str
    command: tuple
    per: int = 1
    reference: tuple = ()            # bytes of used_memory, PEERS in their order
    budget: float = 0.0


def words(text):
    return tuple(text.split())


def fill(count, text):
    return Fill(count, words(text))


STRINGS = (fill(KEYS, f"SET key:{{seq}} {VALUE}"),)
LIBRARY = """#!lua name=bench
redis.register_function('get', function(keys) return redis.call('GET', keys[1]) end)"""
FIELDS = " ".join(f"field:{i:02} {VALUE}" for i in range(50))

WORKLOADS = (
    Workload("PING P1", 1, ("PING",), reference=(11.0, 9.9, 9.8), budget=9.0),
    Workload("SET P1", 1, words(f"SET key:{{key}} {VALUE}"), STRINGS,
             reference=(10.3, 10.8, 10.5), budget=9.0),
    Workload("GET P1", 1, words("GET key:{key}"), STRINGS,
             reference=(9.7, 9.5, 9.7), budget=8.5),
    Workload("PING P64", 64, ("PING",), reference=(0.41, 0.32, 0.39), budget=0.20),
    Workload("SET P64", 64, words(f"SET key:{{key}} {VALUE}"), STRINGS,
             reference=(1.00, 1.18, 1.42), budget=0.55),
    Workload("GET P64", 64, words("GET key:{key}"), STRINGS,
             reference=(0.48, 0.40, 0.54), budget=0.23),
    Workload("INCR P64", 64, words("INCR cnt:{key}"),
             (fill(KEYS, "SET cnt:{seq} 0"),),
             reference=(0.85, 1.04, 1.12), budget=0.50),
    Workload("SET EX P64", 64, words(f"SET key:{{key}} {VALUE} EX 1000"), STRINGS,
             reference=(1.70, 1.79, 2.00), budget=0.95),
    Workload("LPUSH P64", 64, words(f"LPUSH list {VALUE}"), key="list",
             reference=(0.79, 0.61, 0.66), budget=0.38),
    Workload("LPOP P64", 64, ("LPOP", "list"), key="list", limit=2_000_000,
             refill=fill(2_000_000, f"RPUSH list {VALUE}"),
             reference=(0.92, 0.67, 0.83), budget=0.35),
    Workload("SADD P64", 64, words("SADD set elem{key}"),
             (fill(KEYS, "SADD set elem{seq}"),),
             reference=(1.10, 0.95, 1.06), budget=0.58),
    Workload("HSET P64", 64, words(f"HSET hash elem{{key}} {VALUE}"),
             (fill(KEYS, f"HSET hash elem{{seq}} {VALUE}"),),
             reference=(1.30, 1.12, 1.27), budget=0.60),
    Workload("ZADD P64", 64, words("ZADD zset {key} elem{key}"),
             (fill(300_000, "ZADD zset {key} elem{key}"),),
             reference=(3.5, 3.5, 3.7), budget=1.5),
    Workload("MSET of 10 P16", 16, ("MSET",) + ("key:{key}", VALUE) * 10, STRINGS,
             reference=(5.7, 7.9, 8.4), budget=3.5),
    Workload("LRANGE_100 P16", 16, words("LRANGE list 0 99"),
             (fill(100, f"RPUSH list {VALUE}"),),
             reference=(5.9, 6.3, 6.8), budget=3.2),
    Workload("ZRANGE 100 WITHSCORES P16", 16,
             words("ZRANGE zset 50000 50099 WITHSCORES"),
             (fill(100_000, "ZADD zset {seq} elem{seq}"),),
             reference=(10.0, 6.8, 32), budget=4.0),
    Workload("ZRANGEBYSCORE LIMIT 10 P16", 16,
             words("ZRANGEBYSCORE zset {key} +inf LIMIT 0 10"),
             (fill(100_000, "ZADD zset {seq} elem{seq}"),), keyspace=99_000,
             reference=(3.4, 2.1, 2.4), budget=1.3),
    Workload("HGETALL 50 fields P16", 16, ("HGETALL", "hash"),
             (fill(1, f"HSET hash {FIELDS}"),),
             reference=(11.2, 5.8, 6.4), budget=3.5),
    Workload("SINTERCARD 2 x 20000", 1, words("SINTERCARD 2 set1 set2"),
             (fill(20_000, "SADD set1 elem{seq}"), fill(20_000, "SADD set2 elem{seq}")),
             reference=(1110, 1350, 1460), budget=550),
    Workload("XADD MAXLEN ~ P64", 64, words(f"XADD stream MAXLEN ~ 1000 * f {VALUE}"),
             key="stream", reference=(1.73, 1.65, 1.89), budget=1.05),
    Workload("EVAL one call P16", 16,
             ("EVAL", "return redis.call('GET', KEYS[1])", "1", "key:{key}"), STRINGS,
             reference=(4.3, 3.6, 4.0), budget=2.1),
    Workload("PFADD P64", 64, words("PFADD hll elem{key}"), key="hll",
             reference=(0.71, 0.46, 0.61), budget=0.33),
    Workload("BITCOUNT 1 MB", 1, ("BITCOUNT", "bits"),
             (fill(1, "SETRANGE bits 1048575 x"),),
             reference=(34, 39, 294), budget=24),
    Workload("PUBLISH P64", 64, words(f"PUBLISH channel {VALUE}"),
             reference=(0.55, 0.38, 0.54), budget=0.27),
    Workload("FCALL one call P16", 16, words("FCALL get 1 key:{key}"),
             (*STRINGS, Fill(1, ("FUNCTION", "LOAD", "REPLACE", LIBRARY))), of_best=0.60),
    Workload("MULTI, 10 x SET, EXEC P16", 16,
             words("MULTI ; " + f"SET key:{{key}} {VALUE} ; " * 10 + "EXEC"), STRINGS, of_best=0.70),
    Workload("PUBLISH to 100 P16", 16, words(f"PUBLISH channel {VALUE}"),
             listeners=100, listen=words("SUBSCRIBE channel"), of_best=1.0),
)

ELEMENTS = (
    Elements("string, 16 B value", words(f"SET key:{{seq}} {VALUE}"),
             reference=(66, 70, 120), budget=52),
    Elements("string with TTL", words(f"SET key:{{seq}} {VALUE} EX 100000"),
             reference=(100, 92, 161), budget=76),
    Elements("integer value", words("SET key:{seq} 1{seq}"),
             reference=(58, 54, 88), budget=44),
    Elements("field of hashes of 10",
             ("HSET", "key:{seq}") + tuple(w for i in range(10) for w in (f"f{i}", "12345")),
             per=10, reference=(17, 18, 20), budget=16),
    Elements("hash of 3", words("HSET key:{seq} f0 value-0000 f1 value-0001 f2 value-0002"),
             reference=(127, 112, 156), budget=95),
    Elements("hash of 20",
             ("HSET", "key:{seq}") + tuple(w for i in range(20) for w in (f"f{i:02}", VALUE)),
             reference=(575, 577, 605), budget=530),
    Elements("list of 3", words("RPUSH key:{seq} element-0 element-1 element-2"),
             reference=(110, 96, 235), budget=77),
    Elements("set of 3", words("SADD key:{seq} member-0 member-1 member-2"),
             reference=(110, 101, 331), budget=77),
    Elements("intset of 5", words("SADD key:{seq} 1000 1001 1002 1003 1004"),
             reference=(93, 79, 122), budget=61),
    Elements("sorted set of 3", words("ZADD key:{seq} 0 member-0 1 member-1 2 member-2"),
             reference=(110, 104, 139), budget=93),
    Elements("field of one hash", words(f"HSET hash elem{{seq}} {VALUE}"),
             reference=(67, 80, 104), budget=52),
    Elements("member of one set", words("SADD set elem{seq}"),
             reference=(51, 38, 72), budget=34),
    Elements("member of one sorted set", words("ZADD zset {seq} elem{seq}"),
             reference=(81, 102, 126), budget=60),
    Elements("element of one list", words(f"RPUSH list {VALUE}"),
             reference=(18, 18, 18), budget=18),
    Elements("stream entry", words("XADD stream * f 1234567890"),
             reference=(18, 18, 18), budget=18),
)

# Seconds to SAVE and to load the first data set above: PEERS in their order, and ours.
SAVE = ((0.29, 0.46, 0.62), 0.20)
LOAD = ((0.67, 1.15, 0.73), 0.30)


def target(item, peer):
    """The ratio to this peer that meets the budget, or None."""
    if peer not in PEERS or not item.reference or not item.budget:
        return None
    return item.budget / item.reference[PEERS.index(peer)]
