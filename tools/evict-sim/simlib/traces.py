"""Traces: lists of requests (key, size of the value in bytes).

A key always has the same size, so that a replay does not depend on which request stored the value.
"""

import csv
import itertools
import random
import zlib

SMALLEST, LARGEST = 100, 1000
SCAN_EVERY, SCAN_LENGTH = 20_000, 5_000
SHIFT_EVERY = 10_000


def size_of(key):
    """The size of a made-up key's value, the same in each run."""
    return SMALLEST + zlib.crc32(str(key).encode()) % (LARGEST - SMALLEST + 1)


def zipf_ranks(rng, keys, requests, exponent=1.0):
    """Ranks from 0 on, the first one the most frequent."""
    weights = itertools.accumulate(1 / (rank + 1) ** exponent for rank in range(keys))
    return rng.choices(range(keys), cum_weights=list(weights), k=requests)


def zipf(rng, keys, requests):
    """Popularity by Zipf's law, which does not change."""
    return zipf_ranks(rng, keys, requests)


def scan(rng, keys, requests):
    """Zipf, and now and then a scan over keys that are used once."""
    fresh, out = itertools.count(keys), []
    for at, rank in enumerate(zipf_ranks(rng, keys, requests)):
        if at % SCAN_EVERY == SCAN_EVERY // 2:
            out += itertools.islice(fresh, SCAN_LENGTH)
        out.append(rank)
    return out[:requests]


def shifting(rng, keys, requests):
    """Zipf, but which keys are popular changes: the ranks move on by a hundredth of the keys."""
    ranks = zipf_ranks(rng, keys, requests)
    step = max(1, keys // 100)
    return [(rank + at // SHIFT_EVERY * step) % keys for at, rank in enumerate(ranks)]


def loop(rng, keys, requests):
    """Half Zipf, half a loop over a tenth of the keys."""
    ranks, laps = zipf_ranks(rng, keys, requests), itertools.cycle(range(keys, keys + keys // 10))
    return [rank if rng.random() < 0.5 else next(laps) for rank in ranks]


MADE = {made.__name__: made for made in (zipf, scan, shifting, loop)}


def make(name, keys, requests, seed=1):
    """A made-up trace."""
    trace = MADE[name](random.Random(seed), keys, requests)
    return [(key, size_of(key)) for key in trace]


def read_csv(lines):
    """A trace from lines `key,size`; a heading and further columns are ignored. The first size of a
    key counts for all of its requests."""
    out, sizes = [], {}
    for row in csv.reader(lines):
        if len(row) < 2 or not row[1].strip().isdigit():
            continue
        size = sizes.setdefault(row[0], int(row[1]))
        out.append((row[0], size))
    return out
