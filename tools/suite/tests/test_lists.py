"""expected.txt and clean.txt: reading them, and judging results by them."""

import os
import re
import tempfile
import unittest

from suite.expected import Clean, Expected, ListError, glob_to_regex, matches
from suite.results import Baseline, is_clean, merge_retry, summarise


def result(*tests, exceptions=(), timeouts=(), ignored=()):
    return {"tests": [dict(name=n, status=s) for n, s in tests],
            "exceptions": list(exceptions), "timeouts": list(timeouts),
            "ignored": list(ignored), "crashes": [], "seconds": 1.0, "runs": 1}


class WithFile(unittest.TestCase):
    def read(self, cls, text):
        with tempfile.NamedTemporaryFile("w", suffix=".txt", delete=False) as f:
            f.write(text)
        try:
            return cls.read(f.name)
        finally:
            os.unlink(f.name)


class Globs(unittest.TestCase):
    def test_brackets_are_literal_and_stars_are_not(self):
        self.assertTrue(matches("SCAN [TYPE] *", "SCAN [TYPE] with 3 keys"))
        self.assertFalse(matches("SCAN [TYPE] *", "SCAN T 1"))
        self.assertTrue(matches("a?c", "abc"))
        self.assertTrue(matches("KEYS *", "KEYS *"))

    def test_the_whole_name_has_to_match(self):
        self.assertFalse(matches("SET", "SETEX"))
        self.assertFalse(matches("X*", "SETX"))

    def test_everything_odd_is_escaped(self):
        for name in "a.b", "a(b", "a|b", "$a^", "a\\b", "{a}", "a+b":
            self.assertTrue(re.fullmatch(glob_to_regex(name), name), name)
        self.assertFalse(re.fullmatch(glob_to_regex("a.b"), "axb"))


class ExpectedList(WithFile):
    def test_reason_is_needed(self):
        for text in ("unit/a :: t\n", "unit/a :: t :: \n", "unit/a\n"):
            with self.assertRaises(ListError):
                self.read(Expected, text)

    def test_comments_and_a_reason_with_separators(self):
        e = self.read(Expected, "# why\n\nunit/a :: t :: x :: y\n")
        self.assertEqual(e.find("unit/a", "t").reason, "x :: y")

    def test_an_expected_failure_is_clean_and_another_is_not(self):
        e = self.read(Expected, "unit/a :: needs * :: lists come later\n")
        r = result(("needs LPUSH", "err"), ("other", "ok"))
        e.judge("unit/a", r)
        self.assertTrue(is_clean(r))
        self.assertEqual((summarise(r)["expected"], r["err"], r["ok"]), (1, 0, 1))
        r = result(("needs LPUSH", "err"), ("other", "err"))
        e.judge("unit/a", r)
        self.assertFalse(is_clean(r))

    def test_a_line_is_for_its_unit_only(self):
        e = self.read(Expected, "unit/a :: t :: why\n")
        r = result(("t", "err"))
        e.judge("unit/b", r)
        self.assertFalse(is_clean(r))

    def test_exceptions_have_a_name_of_their_own(self):
        e = self.read(Expected, "unit/a :: [exception] *unknown command* :: later\n")
        r = result(exceptions=["ERR unknown command 'lpush'"])
        e.judge("unit/a", r)
        self.assertTrue(is_clean(r))
        self.assertEqual(summarise(r)["expected"], 1)
        r = result(exceptions=["the server crashed"])
        e.judge("unit/a", r)
        self.assertFalse(is_clean(r))

    def test_unused_lines_are_found(self):
        e = self.read(Expected, "unit/a :: fails :: why\nunit/a :: passes :: why\n"
                                "unit/a :: gone :: why\nunit/b :: t :: why\n")
        e.judge("unit/a", result(("fails", "err"), ("passes", "ok")))
        self.assertEqual([(l.test, l.passed) for l in e.unused(["unit/a"])],
                         [("passes", True), ("gone", False)])

    def test_a_test_that_is_not_run_uses_its_line(self):
        e = self.read(Expected, "! unit/a :: hangs (1) :: why\n")
        self.assertEqual(e.not_run("unit/a"), ["/^hangs \\(1\\)$"])
        self.assertEqual(e.not_run("unit/b"), [])
        e.judge("unit/a", result(("hangs (1)", "skip")))
        self.assertEqual(e.unused(["unit/a"]), [])

    def test_a_line_that_tags_left_out_is_not_unused(self):
        e = self.read(Expected, "unit/a :: slow :: why\nunit/b :: slow :: why\n"
                                "unit/b :: gone :: why\n")
        e.judge("unit/a", result(ignored=["Tag: slow denied"]))
        e.judge("unit/b", result(ignored=["slow: Tag: slow denied"]))
        self.assertEqual([l.test for l in e.unused(["unit/a", "unit/b"])], ["gone"])

    def test_a_line_that_passes_is_unused_whatever_tags_left_out(self):
        e = self.read(Expected, "unit/a :: t :: why\n")
        e.judge("unit/a", result(("t", "ok"), ignored=["Tag: slow denied"]))
        self.assertEqual([l.test for l in e.unused(["unit/a"])], ["t"])

    def test_what_needs_another_machine_hides_no_line(self):
        e = self.read(Expected, "unit/a :: gone :: why\n")
        e.judge("unit/a", result(ignored=["large memory flag not provided"]))
        self.assertEqual([l.test for l in e.unused(["unit/a"])], ["gone"])


class CleanList(WithFile):
    def units(self, **results):
        return {"unit/" + name: summarise(r) for name, r in results.items()}

    def test_units_and_tests(self):
        c = self.read(Clean, "unit/a\nunit/b :: t*\n")
        self.assertEqual(c.units(), ["unit/a", "unit/b"])
        good = self.units(a=result(("x", "ok")), b=result(("t1", "ok"), ("u", "err")))
        self.assertEqual(c.broken(good), [])

    def test_what_is_no_longer_clean_is_named(self):
        c = self.read(Clean, "unit/a\nunit/b :: t*\nunit/c\n")
        bad = self.units(a=result(("x", "err")), b=result(("t1", "timeout")))
        self.assertEqual(c.broken(bad), ["unit/a: no longer clean", "unit/b: timeout: t1",
                                         "unit/c: did not run"])

    def test_a_test_that_was_not_reached_is_not_clean(self):
        c = self.read(Clean, "unit/b :: t*\n")
        self.assertEqual(len(c.broken(self.units(b=result(exceptions=["x"])))), 1)


class Results(unittest.TestCase):
    def test_a_retry_takes_over_what_passes(self):
        first, again = result(("a", "err"), ("b", "ok")), result(("a", "ok"), ("b", "err"))
        merge_retry(first, again)
        self.assertTrue(is_clean(first))
        self.assertEqual(summarise(first)["flaky"], 1)

    def test_names_with_numbers_find_their_partner(self):
        first, again = result(("seed 123", "err")), result(("seed 999", "ok"))
        merge_retry(first, again)
        self.assertEqual([t["status"] for t in first["tests"]], ["ok"])

    def test_a_baseline_keeps_what_fails(self):
        unit = summarise(result(("a", "ok"), ("seed 12", "err"), exceptions=["boom"]))
        b = Baseline(Baseline.shrink({"suite": "s", "server": "v", "cpus": 2,
                                      "units": {"unit/a": unit}}))
        self.assertEqual(b.ok("unit/a"), 1)
        self.assertTrue(b.fails("unit/a", "seed 99"))
        self.assertTrue(b.fails("unit/a", "[exception] boom"))
        self.assertFalse(b.fails("unit/a", "a"))
