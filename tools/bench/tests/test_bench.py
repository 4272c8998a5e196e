"""The parts of tools/bench that need no server."""

import contextlib
import io
import unittest
from xml.dom import minidom

from benchlib import cache, chart, cluster, disk, instructions, measure, replication, report, servers, tls, trace, workloads


class Stub:
    """A server as the report sees it."""

    def __init__(self, name, kind=""):
        self.name, self.kind = name, kind


def turns(*figures):
    return [{"cpu_us": f, "per_second": 1e6 / f} for f in figures]


class Specs(unittest.TestCase):
    def test_name_path_and_arguments(self):
        name, command = servers.parse_spec("a=/bin/sh -c 'x y'")
        self.assertEqual((name, command), ("a", ["/bin/sh", "-c", "x y"]))

    def test_a_path_alone_names_itself(self):
        self.assertEqual(servers.parse_spec("/bin/sh")[0], "sh")

    def test_what_is_not_there_is_refused(self):
        for spec in ("a=/no/such/server", "a=", ""):
            with self.assertRaises(servers.ServerError):
                servers.parse_spec(spec)

    def test_ports_in_a_command(self):
        s = servers.Server.__new__(servers.Server)
        s.dir = "/tmp"
        s.command = ["/x", "@7005"]
        self.assertEqual(s.arguments(), (7005, ["/x"]))
        s.command = ["/x", "-p{port}"]
        port, args = s.arguments()
        self.assertEqual(args, ["/x", f"-p{port}"])
        s.command = ["/x", "--io-threads", "1"]
        port, args = s.arguments()
        self.assertEqual(args[:5], ["/x", "--io-threads", "1", "--port", str(port)])

    def test_kind_comes_from_the_version_line(self):
        self.assertEqual(servers.kind_of("Redis server v=7.0.15 sha=0:0 bits=64"), "redis-7.0")
        self.assertEqual(servers.kind_of("Valkey server v=9.1.2 sha=0"), "valkey-9.1")
        self.assertEqual(servers.kind_of("ping example"), "")


class Budgets(unittest.TestCase):
    def test_every_workload_has_figures_and_a_budget_below_them(self):
        judged_by_run = [i for i in workloads.WORKLOADS if i.of_best]
        for item in judged_by_run:
            self.assertTrue(item.of_best <= 1 and not item.budget and not item.reference, item.name)
        for item in set(workloads.WORKLOADS + workloads.ELEMENTS) - set(judged_by_run):
            self.assertEqual(len(item.reference), len(workloads.PEERS), item.name)
            self.assertTrue(0 < item.budget <= min(item.reference), item.name)

    def test_names_are_unique(self):
        names = [i.name for i in workloads.WORKLOADS + workloads.ELEMENTS + disk.scenes()
                 + trace.scenes()]
        names += [row.name for scene in replication.scenes() + cache.scenes() for row in scene.rows]
        self.assertEqual(len(names), len(set(names)))

    def test_target_is_a_ratio_to_the_peer_that_was_measured(self):
        item = workloads.Workload("x", 1, ("PING",), reference=(1.0, 2.0, 4.0), budget=0.5)
        self.assertEqual(workloads.target(item, "valkey-9.1"), 0.5)
        self.assertEqual(workloads.target(item, "redis-7.0"), 0.125)
        self.assertIsNone(workloads.target(item, "valkey-8.0"))

    def test_verdict_at_the_limit(self):
        self.assertTrue(report.verdict(0.504, 0.5)[0])
        self.assertFalse(report.verdict(0.52, 0.5)[0])

    def test_the_newest_known_peer_is_the_reference(self):
        fleet = [Stub("ours"), Stub("r", "redis-7.0"), Stub("v", "valkey-9.1"),
                 Stub("w", "valkey-8.0")]
        self.assertEqual(report.reference_peer(fleet).name, "v")
        self.assertIsNone(report.reference_peer(fleet[:1]))


class Figures(unittest.TestCase):
    def test_ratio_is_taken_turn_by_turn(self):
        # Both slow down together in the last turn: the ratio doesn't move.
        self.assertEqual(measure.ratio(turns(1, 1, 8), turns(2, 2, 16)), 0.5)

    def test_report_counts_met_missed_and_unmeasured(self):
        item = workloads.Workload("x", 1, ("PING",), reference=(1.0, 1.0, 1.0), budget=0.5)
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            r = report.Report([Stub("ours"), Stub("r", "redis-7.0")], budgets=True)
            r.heading("t")
            r.workload(item, {"ours": turns(1), "r": turns(4)})
            r.workload(item, {"ours": turns(3), "r": turns(4)})
            r.workload(item, {"ours": "ERR unknown command", "r": turns(4)})
            self.assertFalse(r.summary())
        self.assertIn("0.25 <= 0.50 met", out.getvalue())
        self.assertIn("0.75 > 0.50 MISSED", out.getvalue())
        self.assertIn("(ours: ERR unknown command)", out.getvalue())
        self.assertIn("budgets: 1 met, 1 missed, 1 not measured", out.getvalue())

    def test_without_reference_figures_the_best_peer_of_the_run_is_the_measure(self):
        item = workloads.Workload("x", 1, ("PING",), of_best=0.5)
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            fleet = [Stub("ours"), Stub("older"), Stub("r", "redis-7.0"), Stub("v", "valkey-8.0")]
            r = report.Report(fleet, budgets=True)
            r.heading("t")
            for ours in (1, 1.2):
                r.workload(item, {"ours": turns(ours), "older": turns(1), "r": turns(4), "v": turns(2)})
        self.assertIn("0.50 <= 0.50 met", out.getvalue())
        self.assertIn("0.60 > 0.50 MISSED", out.getvalue())

    def test_a_figure_with_a_limit_of_its_own_is_not_compared_with_a_peer(self):
        row = replication.Row("x", "cpu_us", at_most=2.0)
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            r = report.Report([Stub("ours"), Stub("r", "redis-7.0")], budgets=True)
            r.heading("t")
            for ours in (1.5, 2.5):
                r.workload(row, {"ours": turns(ours), "r": turns(1)})
            r.workload(row, {"ours": "it failed", "r": turns(1)})
        self.assertIn("1.50 <= 2.00 met", out.getvalue())
        self.assertIn("2.50 > 2.00 MISSED", out.getvalue())
        self.assertIn("not measured", out.getvalue())

    def test_a_scene_is_told_as_the_ratio_within_a_turn(self):
        scene = disk.scenes()[0]
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            r = report.Report([Stub("ours"), Stub("theirs")], budgets=True)
            r.heading("t")
            r.scene(scene, {"ours": [(1, 1.1), (8, 9), (2, 2)], "theirs": [(1, 3)]})
            r.scene(scene, {"ours": [(1, 2)], "theirs": "no log"})
        self.assertIn("2.00 / 2.00", out.getvalue())
        self.assertIn("3.00  1.10 <= 1.15 met", out.getvalue())
        self.assertIn("2.00 > 1.15 MISSED", out.getvalue())
        self.assertIn("(theirs: no log)", out.getvalue())

    def test_chart_is_well_formed_and_escapes_names(self):
        data = {"servers": ["a<b", "c"],
                "workloads": {"x & y": {"a<b": turns(1), "c": turns(2)},
                              "none": {"a<b": "error", "c": "error"}},
                "memory": {"s": {"a<b": {"used": 50}, "c": {"used": 100}}}}
        drawn = minidom.parseString(chart.svg(data))
        bars = [r for r in drawn.getElementsByTagName("rect")
                if r.getAttribute("height") == str(chart.BAR - 2) and r.getAttribute("x") == str(chart.LEFT)]
        self.assertEqual(len(bars), 4 + 1)      # and the legend's first square


class Replication(unittest.TestCase):
    def test_a_drift_is_no_cost_of_a_replica(self):
        cost = [1.0, 1.7, 1.8, 1.5]            # 0.1 more each time, and 0.25 for each replica
        self.assertAlmostEqual(replication.each_more(cost), 0.25)
        with self.assertRaises(servers.ServerError):
            replication.each_more([2, 1, 1, 2])

    def test_a_group_that_fails_leaves_the_figures_of_the_others(self):
        def turn(group, _client, _seconds, seed):
            if group.name == "broken":
                raise servers.ServerError("no replica")
            return {"x": seed}
        scene = replication.Scene((replication.Row("x", "x", 1.0),), lambda *_: None, turn)
        members = [Stub("whole"), Stub("broken")]
        for member in members:
            member.start = member.stop = lambda: None
        results = replication.measure(members, scene, None, 2, 1.0, lambda _line: None)
        self.assertEqual(results, {"whole": [{"x": 1}, {"x": 2}], "broken": "no replica"})

    def test_a_peak_is_the_largest_sample(self):
        figures = iter([1, 7, 3])
        with replication.Peak(lambda: next(figures, 2)) as peak:
            while peak.largest < 7:
                pass
        self.assertEqual(peak.largest, 7)


class Cache(unittest.TestCase):
    def test_misses_are_a_share_of_the_reads(self):
        result = cache.with_misses({"reads": 200, "hits": 150, "cpu_us": 1.0})
        self.assertEqual((result["miss"], result["cpu_us"]), (25.0, 1.0))
        for hits, reads in ((0, 0), (7, 7)):
            with self.assertRaises(servers.ServerError):
                cache.with_misses({"reads": reads, "hits": hits})

    def test_a_server_that_fails_leaves_the_figures_of_the_others(self):
        class Full(Stub):
            def ask(self, *words):
                if self.name == "b" and words[0] == "CONFIG":
                    raise servers.ServerError("no such setting")

        class Client:
            def run(self, server, command, **options):
                self.command = command
                return {"reads": 10, "hits": 5, "cpu_us": 1.0, "seed": options.get("seed", 0)}

        client = Client()
        results = cache.measure([Full("a"), Full("b")], cache.scenes()[0], client, 2, 1.0,
                                lambda _: None)
        self.assertEqual(results["b"], "no such setting")
        self.assertEqual([r["seed"] for r in results["a"]], [2, 3])
        self.assertEqual(client.command, ("--cache",))


class Node:
    """A node that answers with these replies, in their order; an error ends them."""

    def __init__(self, *replies):
        self.replies = list(replies)

    def ask(self, *_):
        if not self.replies:
            raise servers.ServerError("MOVED 1 127.0.0.1:1")
        return self.replies.pop(0)


class Cluster(unittest.TestCase):
    def test_a_writer_follows_its_key_and_measures_the_pause(self):
        writer = cluster.Writer(Node(b"OK"), Node(b"OK"), "key")
        writer.write()
        self.assertFalse(writer.moved)
        writer.accepted -= 5
        writer.write()
        self.assertTrue(writer.moved)
        self.assertGreaterEqual(writer.pause, 5)

    def test_a_write_that_no_node_takes_is_not_accepted(self):
        writer = cluster.Writer(Node(), Node(), "key")
        accepted = writer.accepted
        writer.write()
        self.assertEqual((writer.moved, writer.accepted), (False, accepted))

    def test_a_key_is_found_by_its_slot(self):
        self.assertEqual(cluster.key_of(Node(7, 9, 3), 1, 5), "key:2")

    def test_rows_of_a_node_are_known_by_their_arguments(self):
        rows = {row.name: row for row in instructions.ROWS}
        self.assertTrue(rows["GET, cluster"].cluster)
        self.assertFalse(rows["GET, tagged keys"].cluster)


class Tls(unittest.TestCase):
    def server(self):
        s = tls.TlsServer.__new__(tls.TlsServer)
        s.dir, s.command, s.files = "/tmp", ["/x"], ("crt", "key")
        s.port, self.args = s.arguments()
        return s

    def test_a_server_has_a_port_for_tls_beside_its_plain_one(self):
        s = self.server()
        self.assertNotEqual(s.port, s.tls_port)
        self.assertEqual(self.args[self.args.index("--tls-port") + 1], str(s.tls_port))
        self.assertEqual(self.args[self.args.index("--tls-cert-file") + 1], "crt")

    def test_only_what_is_measured_goes_over_tls(self):
        s, client = self.server(), tls.TlsClient("load", None, 5)
        args, command = client.command(s, ("PING",), pipeline=1)
        self.assertIn("--tls", args)
        self.assertEqual((args[2], command), (str(s.tls_port), ["PING"]))
        client.plain = True
        args, _ = client.command(s, ("PING",))
        self.assertNotIn("--tls", args)
        self.assertEqual(args[2], str(s.port))

    def test_all_rows_are_judged_by_the_best_peer(self):
        self.assertTrue(all(row.of_best == 1.0 for row in [*tls.WORKLOADS, *tls.STORM]))


class Instructions(unittest.TestCase):
    def test_the_last_count_is_taken_and_none_is_an_error(self):
        log = "==7== Collected : 12\n==8== Events    : Ir\n==8== Collected : 345\n"
        self.assertEqual(instructions.collected(log), 345)
        with self.assertRaises(servers.ServerError):
            instructions.collected("==7== a server that crashed")

    def test_what_both_runs_do_does_not_count(self):
        self.assertEqual(instructions.per_request(1_000_000, 1_500_000, 1000), 500)

    def test_rows_have_different_names(self):
        names = [row.name for row in instructions.ROWS]
        self.assertEqual(len(names), len(set(names)))


class Frames(unittest.TestCase):
    """The small client reads every kind of reply that the setup meets."""

    def client(self, stream):
        c = servers.Resp.__new__(servers.Resp)
        c.file = io.BytesIO(stream)
        return c

    def test_replies(self):
        c = self.client(b"+OK\r\n:7\r\n$2\r\n\r\n\r\n$-1\r\n*2\r\n:1\r\n+a\r\n")
        self.assertEqual([c.reply() for _ in range(5)], [b"OK", 7, b"\r\n", None, [1, b"a"]])

    def test_errors_and_a_closed_connection_raise(self):
        for stream in (b"-ERR no\r\n", b"", b"+half"):
            with self.assertRaises(servers.ServerError):
                self.client(stream).reply()
