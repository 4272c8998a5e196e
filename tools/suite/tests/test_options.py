"""The command line of tools/suite/run."""

import os
import types
import unittest

from suite.options import parse_arguments
from suite.unit import UnitRunner


class Mode(unittest.TestCase):
    def config(self, *argv):
        return parse_arguments(argv).config

    def test_each_suite_runs_in_its_own_words(self):
        valkey = self.config("--src", "/x/valkey-8.1.1", "--server", "/y/aeris-server")
        self.assertEqual(valkey[0], ["extended-redis-compatibility", "no"])
        self.assertIn(["lazyfree-lazy-expire", "yes"], valkey)
        redis = self.config("--src", "/x/redis-7.0.15", "--server", "/y/aeris-server")
        self.assertEqual(redis, [["extended-redis-compatibility", "yes"]])

    def test_the_mode_can_be_chosen_and_the_users_settings_come_later(self):
        config = self.config("--src", "/x/valkey-8.1.1", "--server", "/y/aeris-server",
                             "--mode", "redis", "--config", "hz 100")
        self.assertEqual(config, [["extended-redis-compatibility", "yes"], ["hz", "100"]])

    def test_a_real_server_gets_the_setting_only_when_it_is_asked_for(self):
        real = ("--src", "/x/redis-7.0.15", "--server", "/usr/bin/redis-server")
        self.assertEqual(self.config(*real), [])
        self.assertEqual(len(self.config(*real, "--mode", "redis")), 1)

    def test_a_unit_with_another_server_has_none_of_our_settings(self):
        options = parse_arguments(("--src", "/x/valkey-8.1.1", "--server", "/y/aeris-server",
                                   "--other-server", "/z/redis-server"))
        none = types.SimpleNamespace(not_run=lambda _: [])
        copy = types.SimpleNamespace(base=1000)

        def command(unit):
            return UnitRunner(options, none).command(copy, unit, [])
        other = command("integration/cross-version-replication")
        self.assertEqual(other[-2:], ["--other-server-path", "/z/redis-server"])
        self.assertNotIn("--config", other)
        self.assertNotIn("/z/redis-server", command("integration/failover"))

    def test_a_run_over_tls_says_so_to_the_suite(self):
        o = parse_arguments(("--src", "/x/valkey-8.1.1", "--server", "/y/aeris-server", "--tls",
                             "--suite-arg=--verbose"))
        self.assertEqual(o.suite_args, ["--tls", "--verbose"])
        self.assertEqual(os.path.basename(o.expected_tls), "expected-tls.txt")


if __name__ == "__main__":
    unittest.main()
