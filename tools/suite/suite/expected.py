"""What may fail, and what must not: expected.txt and clean.txt.

expected.txt lists each test that may fail, with its reason:

    unit :: test name :: reason          it runs; it may fail
    ! unit :: test name :: reason        it is not run: it would take the
                                         tests behind it down

A unit or a test name may hold `*` and `?` as wildcards. What a unit raises
outside of any test has the name `[exception]`, followed by its text.
clean.txt lists what is held clean:

    unit                                 every test but the expected ones
    unit :: test name                    only the tests of that name

**Invariants**: a line without a reason is refused (`test_reason_is_needed`);
a line that no failure needed is reported, so the list can only shrink
(`test_unused_lines_are_found`), unless its test may be one of those that the
tags left out (`test_a_line_that_tags_left_out_is_not_unused`): the quick
profile knows nothing about slow tests.
"""

import dataclasses
import re

EXCEPTION = "[exception] "

# What the suite says of a test that tags leave out, or of a block of unnamed ones.
DENIED = re.compile(r"(?:(?P<test>.*): )?Tag: \S+ denied", re.S)


class ListError(Exception):
    """A line of one of the lists that can't be read."""


def glob_to_regex(glob):
    """`*` and `?` as wildcards; brackets stay what they are, since names of
    tests are full of them. The result is valid for Python and for Tcl."""
    return "".join(".*" if c == "*" else "." if c == "?"
                   else c if c.isalnum() or c in " _-" else "\\" + c
                   for c in glob)


def matches(glob, name):
    return glob == name or re.fullmatch(
        glob_to_regex(glob), name, re.S) is not None


def fields_of(path, wanted):
    """Yield (line number, fields) for each line of a list that says anything."""
    with open(path, encoding="utf-8") as f:
        for number, line in enumerate(f, 1):
            line = line.strip()
            if not line or line.startswith("#"):
                continue
            fields = [part.strip() for part in line.split(" :: ", max(wanted) - 1)]
            if len(fields) not in wanted or not all(fields):
                raise ListError(f"{path}:{number}: wants "
                                + " or ".join(map(str, wanted))
                                + f" fields with ' :: ' between them: {line}")
            yield number, fields


@dataclasses.dataclass
class Line:
    """One line of expected.txt, and what the run made of it."""
    number: int
    unit: str
    test: str
    reason: str
    not_run: bool = False
    used: bool = False           # a failure needed it
    passed: bool = False         # a test of that name passed

    def text(self):
        mark = "! " if self.not_run else ""
        return f"{mark}{self.unit} :: {self.test} :: {self.reason}"


class Expected:
    """The failures that have a reason."""

    def __init__(self, lines=()):
        self.lines = list(lines)
        self.left_out = []       # (unit, test, or None for some without a name)

    @classmethod
    def read(cls, path):
        lines = []
        for number, (unit, test, reason) in fields_of(path, (3,)):
            not_run = unit.startswith("!")
            lines.append(Line(number, unit.lstrip("! "), test, reason, not_run))
        return cls(lines)

    def find(self, unit, name):
        return next((line for line in self.lines if matches(line.unit, unit)
                     and matches(line.test, name)), None)

    def not_run(self, unit):
        """Patterns for --skiptest: regular expressions after a slash."""
        return ["/^" + glob_to_regex(line.test) + "$" for line in self.lines
                if line.not_run and matches(line.unit, unit)]

    def judge(self, unit, result):
        """Mark in a unit's result what is expected, and note which lines were
        needed. A test's mark is its reason; expected exceptions move to a list
        of their own."""
        for test in result["tests"]:
            line = self.find(unit, test["name"])
            if line is None:
                continue
            if test["status"] in ("err", "timeout"):
                test["expected"] = line.reason
                line.used = True
            elif test["status"] == "skip" and line.not_run:
                line.used = True
            elif test["status"] == "ok":
                line.passed = True
        unexpected = []
        for text in result["exceptions"]:
            line = self.find(unit, EXCEPTION + text)
            if line is None:
                unexpected.append(text)
            else:
                line.used = True
                result.setdefault("expected_exceptions", []).append(
                    {"text": text, "expected": line.reason})
        result["exceptions"] = unexpected
        self.left_out += [(unit, denied["test"]) for denied
                          in map(DENIED.fullmatch, result["ignored"]) if denied]

    def unused(self, units):
        """Lines that no failure of these units needed."""
        return [line for line in self.lines
                if not (line.used or self.may_be_left_out(line))
                and any(matches(line.unit, unit) for unit in units)]

    def may_be_left_out(self, line):
        return not line.passed and any(
            matches(line.unit, unit) and (test is None or matches(line.test, test))
            for unit, test in self.left_out)


class Clean:
    """What is held clean: units, or some tests of a unit."""

    def __init__(self, entries=()):
        self.entries = list(entries)         # (unit, test glob or None)

    @classmethod
    def read(cls, path):
        return cls((fields[0], fields[1] if len(fields) == 2 else None)
                   for _, fields in fields_of(path, (1, 2)))

    def units(self):
        return list(dict.fromkeys(unit for unit, _ in self.entries))

    def broken(self, units):
        """One line for each entry that is no longer clean in these results."""
        out = []
        for unit, test in self.entries:
            if unit not in units:
                out.append(f"{unit}: did not run")
            elif test is None:
                if not units[unit]["clean"]:
                    out.append(f"{unit}: no longer clean")
            else:
                out += self.broken_tests(unit, test, units[unit]["tests"])
        return out

    @staticmethod
    def broken_tests(unit, glob, tests):
        named = [t for t in tests if matches(glob, t["name"])]
        if not named:
            return [f"{unit}: no test was reached that is called {glob}"]
        return [f"{unit}: {t['status']}: {t['name']}" for t in named
                if t["status"] in ("err", "timeout") and not t.get("expected")]
