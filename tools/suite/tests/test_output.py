"""Reading what the suites print."""

import unittest

from suite.output import parse_helper, parse_instances

HELPER = """\
[ready]: 4242
[testing]: unit/type/incr
[ok]: INCR against non existing key (3 ms)
\x1b[0;31m[err]: DECR fails (by one) in tests/unit/type/incr.tcl
Expected '1' to be equal to '2' (context: type eval line 3)
[skip]: slow one
[err]: needs a list in /tmp/x/tests/unit/type/incr.tcl
nknown command 'lpush'
ERR unknown command 'lpush'
    while executing
"r lpush l a"
[ignore]: large memory flag not provided
[exception]: Executing test client: I/O error reading reply.
I/O error reading reply
    while executing
[1/1 done]: unit/type/incr (2 seconds)

                   The End
[err]: what stands behind the end does not count in tests/x.tcl
"""

HUNG = """\
[ok]: first (1 ms)
[TIMEOUT]: clients state report follows.
sock1 => (IN PROGRESS) the slow one
Killing still running server 12
"""

INSTANCES = """\
12:00:00> Basic failover: OK
12:00:01> Slow one: 1 2 3
OK
12:00:02> Broken: FAILED: caught an error in the test ERR x
>>>>>>>> Strange
12:00:03> Cut off: .
"""


class Helper(unittest.TestCase):
    def setUp(self):
        self.log = parse_helper(HELPER)

    def test_tests_and_their_status(self):
        self.assertEqual([(t["name"], t["status"]) for t in self.log.tests], [
            ("INCR against non existing key", "ok"), ("DECR fails (by one)", "err"),
            ("slow one", "skip"), ("needs a list", "err")])
        self.assertEqual(self.log.tests[0]["ms"], 3)
        self.assertTrue(self.log.done)

    def test_reasons(self):
        self.assertTrue(self.log.tests[1]["reason"].startswith("Expected '1'"))
        self.assertEqual(self.log.tests[3]["reason"], "ERR unknown command 'lpush'")
        self.assertEqual(self.log.tests[3]["kind"], "error")

    def test_what_is_outside_of_tests(self):
        self.assertEqual(len(self.log.exceptions), 1)
        self.assertEqual(len(self.log.ignored), 1)

    def test_a_hung_test_is_found(self):
        log = parse_helper(HUNG)
        self.assertEqual(log.hung, "the slow one")
        self.assertFalse(log.done)


class Instances(unittest.TestCase):
    def test_statuses(self):
        log = parse_instances(INSTANCES)
        self.assertEqual([(t["name"], t["status"]) for t in log.tests], [
            ("Basic failover", "ok"), ("Slow one", "ok"), ("Broken", "err")])
        self.assertEqual(log.exceptions, ["Strange"])
        self.assertEqual(log.hung, "Cut off")
