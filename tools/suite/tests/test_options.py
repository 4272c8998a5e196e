"""The command line of tools/suite/run."""

import unittest

from suite.options import parse_arguments


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


if __name__ == "__main__":
    unittest.main()
