"""Tests of evict-sim without servers."""

import os
import sys
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, os.pardir), os.path.join(HERE, os.pardir, os.pardir, "bench")]

from simlib import caches, replay, report, traces  # noqa: E402


class FakeServer:
    """Replies to GET and SET from a cache of exact LRU."""

    def __init__(self, capacity):
        self.cache = caches.Lru(capacity)

    def talk(self, requests):
        return [self.reply(request.split(b"\r\n")[2::2]) for request in requests]

    def reply(self, words):
        if words[0] == b"GET":
            return b"v" if self.cache.use(words[1]) else None
        self.cache.store(words[1], len(words[2]))
        return b"OK"


class Caches(unittest.TestCase):
    def hits(self, cache, keys):
        trace = [(key, 1) for key in keys]
        return [round(len(trace) * caches.hit_ratio(cache, trace, 0, 1)), sorted(cache.sizes)]

    def test_lru_evicts_what_was_used_least_recently(self):
        self.assertEqual(self.hits(caches.Lru(2), "abaca"), [2, ["a", "c"]])

    def test_lfu_evicts_what_was_used_least_often(self):
        self.assertEqual(self.hits(caches.Lfu(2), "aabcac"), [3, ["a", "c"]])

    def test_capacities_are_bytes(self):
        cache = caches.Lru(10)
        for key in "abc":
            cache.store(key, 4)
        self.assertEqual((cache.used, list(cache.sizes)), (8, ["b", "c"]))


class Traces(unittest.TestCase):
    def test_made_up_traces_are_the_same_each_time(self):
        for name in traces.MADE:
            trace = traces.make(name, 1000, 5000)
            self.assertEqual(trace, traces.make(name, 1000, 5000))
            self.assertEqual(len(trace), 5000)
            sizes = dict(trace)
            self.assertTrue(all(sizes[key] == size for key, size in trace))

    def test_lines_of_csv(self):
        lines = ["key,size", "a,10,GET", "b,20", "a,30", "broken"]
        self.assertEqual(traces.read_csv(lines), [("a", 10), ("b", 20), ("a", 10)])


class Replays(unittest.TestCase):
    def test_a_replay_counts_hits_after_the_warm_up(self):
        trace = [(key, 5) for _ in range(8) for key in range(16)]
        server = FakeServer(16 * 5)
        self.assertEqual(replay.replay(trace, 64, 0, server.talk), 1.0)

    def test_a_replay_through_an_exact_server_is_the_exact_cache(self):
        trace = [(str(key), size) for key, size in traces.make("zipf", 500, 4000)]
        encoded = [(key.encode(), size) for key, size in trace]
        exact = caches.hit_ratio(caches.Lru(20_000), encoded, 1000, replay.BATCH)
        server = FakeServer(20_000)
        self.assertEqual(replay.replay(trace, 1000, 0, server.talk), exact)
        self.assertTrue(0.1 < exact < 0.9)


class Reports(unittest.TestCase):
    rows = [("zipf", "allkeys-lru", {"ours": 0.5, "peer": 0.6, "exact": 0.52}),
            ("zipf", "allkeys-lfu", {"ours": 0.5, "peer": 0.4, "exact": 0.7})]

    def test_goals_that_are_missed_are_named(self):
        self.assertEqual(len(report.behind(self.rows, "ours")), 2)
        self.assertEqual(report.behind(self.rows[1:], "ours"), [])

    def test_table_and_chart_have_every_ratio(self):
        names = ["ours", "peer", "exact"]
        self.assertIn("60.00%", report.table(self.rows, names))
        self.assertEqual(report.svg(self.rows, names).count("<rect"), 3 + 6)


if __name__ == "__main__":
    unittest.main()
