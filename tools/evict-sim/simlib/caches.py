"""Exact caches: LRU and LFU with a capacity in bytes of values.

A request is a hit if the key is in the cache; after a miss, it is stored. Requests come in batches,
as in a replay through a server: the missing keys of a batch are stored at its end.
"""

import collections
import heapq
import itertools


class Lru:
    """Evicts the key that was used least recently."""

    def __init__(self, capacity):
        self.capacity, self.used = capacity, 0
        self.sizes = collections.OrderedDict()

    def use(self, key):
        """Whether the key is in the cache."""
        if key not in self.sizes:
            return False
        self.sizes.move_to_end(key)
        return True

    def store(self, key, size):
        """Stores a key that is not in the cache."""
        self.sizes[key] = size
        self.used += size
        while self.used > self.capacity:
            self.used -= self.sizes.popitem(last=False)[1]


class Lfu:
    """Evicts the key that was used least often since it was stored; of several, the one that was
    used least recently."""

    def __init__(self, capacity):
        self.capacity, self.used = capacity, 0
        self.sizes, self.uses, self.heap = {}, {}, []
        self.clock = itertools.count()

    def use(self, key):
        """Whether the key is in the cache."""
        if key not in self.sizes:
            return False
        self.note(key, self.uses[key][0] + 1)
        return True

    def store(self, key, size):
        """Stores a key that is not in the cache."""
        while self.used + size > self.capacity and self.sizes:
            self.evict()
        self.sizes[key] = size
        self.used += size
        self.note(key, 1)

    def note(self, key, uses):
        self.uses[key] = (uses, next(self.clock))
        heapq.heappush(self.heap, (self.uses[key], key))

    def evict(self):
        uses, key = heapq.heappop(self.heap)
        # Entries that are not the key's last ones are stale.
        while self.uses.get(key) != uses:
            uses, key = heapq.heappop(self.heap)
        self.used -= self.sizes.pop(key)
        del self.uses[key]


def hit_ratio(cache, trace, warm, batch):
    """The share of hits among the requests after the first `warm`."""
    hits = counted = 0
    for at in range(0, len(trace), batch):
        requests = trace[at:at + batch]
        found = [cache.use(key) for key, _ in requests]
        for key, size in dict(r for r, hit in zip(requests, found) if not hit).items():
            cache.store(key, size)
        if at >= warm:
            counted += len(requests)
            hits += sum(found)
    return hits / max(1, counted)
