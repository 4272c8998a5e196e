"""Tests of tools/cluster/cluster without servers."""

import importlib.machinery
import importlib.util
import os
import tempfile
import unittest

PATH = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "cluster")
LOADER = importlib.machinery.SourceFileLoader("cluster", PATH)
cluster = importlib.util.module_from_spec(importlib.util.spec_from_loader("cluster", LOADER))
LOADER.exec_module(cluster)


def made(*arguments):
    return cluster.new_cluster(cluster.parse(["start", "--server", "/bin/true", *arguments]))


class NewCluster(unittest.TestCase):
    def test_a_replica_is_of_another_core_than_its_primary(self):
        nodes = made("--nodes", "3", "--replicas", "2", "--port", "100", "--bus-distance", "50")["nodes"]
        self.assertEqual([node["port"] for node in nodes], list(range(100, 109)))
        self.assertEqual([node["bus"] for node in nodes], list(range(150, 159)))
        self.assertEqual([node.get("primary") for node in nodes], [None] * 3 + [1, 2, 0, 2, 0, 1])

    def test_each_primary_has_as_many_replicas(self):
        for nodes in range(1, 6):
            primaries = [node["primary"] for node in made("--nodes", str(nodes), "--replicas", "3")["nodes"][nodes:]]
            self.assertEqual(sorted(primaries), sorted(list(range(nodes)) * 3))

    def test_nodes_are_pinned_to_the_cores_in_turn(self):
        cores = sorted(os.sched_getaffinity(0))
        nodes = made("--nodes", str(len(cores) + 1), "--pin")["nodes"]
        self.assertEqual([node["core"] for node in nodes], [*cores, cores[0]])
        self.assertNotIn("core", made()["nodes"][0])

    def test_ports_that_do_not_fit_are_refused(self):
        for arguments in (["--nodes", "0"], ["--replicas", "-1"], ["--port", "60000"]):
            with self.assertRaises(cluster.Failed):
                made(*arguments)


class Status(unittest.TestCase):
    def setUp(self):
        self.ask = cluster.ask
        self.addCleanup(setattr, cluster, "ask", self.ask)

    def test_each_node_has_a_row(self):
        views = {1: "a 127.0.0.1:1@2 myself,master - 0 0 1 connected 0-5 7 [8->-b]\n", 2: "x\nb h:2@3 myself,slave a 0 0 1 connected\n"}
        replies = {("cluster", "info"): "cluster_state:ok\r\n", ("dbsize",): 9,
                   ("info",): "used_memory_human:1M\r\ninstantaneous_ops_per_sec:3\r\nmaster_link_status:up\r\n"}

        def ask(_, node, *words):
            if node["port"] == 3:
                return None
            return views[node["port"]] if words == ("cluster", "nodes") else replies[words]

        cluster.ask = ask
        rows = list(cluster.rows({"nodes": [{"port": 1, "core": 4}, {"port": 2}, {"port": 3}]}))
        self.assertEqual(rows, [(1, "primary", "0-5 7", 9, "1M", "3", 4, "ok"),
                                (2, "replica of 1", "-", 9, "1M", "3", "-", "ok, link up"),
                                (3, "-", "-", "-", "-", "-", "-", "down")])
        self.assertIn("<td>replica of 1</td>", cluster.page({"nodes": [{"port": 1}, {"port": 2}]}))


class Folder(unittest.TestCase):
    def test_without_a_cluster_there_is_nothing_to_stop(self):
        with tempfile.TemporaryDirectory() as folder:
            self.assertEqual(cluster.main(["stop", "--dir", folder]), 1)

    def test_what_is_saved_is_loaded(self):
        with tempfile.TemporaryDirectory() as folder:
            cluster.save(folder, made())
            self.assertEqual(cluster.load(folder), made())


if __name__ == "__main__":
    unittest.main()
