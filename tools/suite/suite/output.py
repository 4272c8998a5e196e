"""Reading what the suites print.

test_helper.tcl marks its lines ([ok], [err], [skip], ...), and what follows a
mark until the next one belongs to it. The runners of many instances print
"HH:MM:SS> name: " and, on that line or a later one, OK or FAILED.
"""

import re

from .text import ANSI, shorten


class UnitLog:
    """What one run of one unit has reported."""

    def __init__(self):
        self.tests = []          # dicts: name, status, ms, reason, kind
        self.exceptions = []     # failures outside of any test
        self.ignored = []        # what tags and missing features leave out
        self.timeouts = []       # time-outs outside of any test
        self.hung = None         # name of the test that made no progress
        self.done = False

    def add(self, name, status, **more):
        self.tests.append(dict(name=name, status=status, **more))

    def names(self):
        return {t["name"] for t in self.tests}


MARK = re.compile(
    r"^\[(?P<mark>ok|err|exception|skip|ignore|TIMEOUT|ready|testing"
    r"|\d+/\d+ done)\]:? ?(?P<rest>.*)$")
IN_FILE = re.compile(r"^(?P<name>.*?) in (?:\S*/)?tests/\S+\.tcl$", re.S)


def reason_of(details):
    """One line that says why, and whether a Tcl error was raised.

    For an error that is no assertion the suites cut the first ten characters
    off the message but append the Tcl trace, which has it in full."""
    for i, line in enumerate(details):
        if line.strip() == "while executing" and i > 0:
            return shorten(details[i - 1]), "error"
    return shorten(" ".join(details[:3])), "assert"


def parse_helper(text):
    """Parse the output of test_helper.tcl."""
    log = UnitLog()
    mark, rest, details = None, "", []

    def finish():
        if mark == "ok":
            timed = re.match(r"(.*) \((\d+) ms\)$", rest)
            if timed:
                log.add(timed.group(1), "ok", ms=int(timed.group(2)))
            else:
                log.add(rest, "ok")
        elif mark == "err":
            named = IN_FILE.match(rest)
            if named:
                reason, kind = reason_of(details)
                log.add(named.group("name"), "err", reason=reason, kind=kind)
            else:
                reason, kind = reason_of([rest] + details)
                if rest.startswith("Can't start"):
                    tail = "\n".join(details).rpartition("ERROR:")[2]
                    reason = shorten(f"{rest}: {tail}")
                log.exceptions.append(reason)
        elif mark == "exception":
            log.exceptions.append(shorten(" ".join([rest] + details[:4])))
        elif mark == "skip":
            named = re.match(r"(.*) in (?:\S*/)?tests/\S+\.tcl: (.*)$", rest)
            if named:
                log.add(named.group(1), "skip", reason=shorten(named.group(2)))
            else:
                log.add(rest, "skip")
        elif mark == "ignore":
            log.ignored.append(shorten(rest))
        elif mark == "TIMEOUT":
            states = [d for d in details if " => " in d]
            running = re.search(r"\(IN PROGRESS\) (.*)", "\n".join(states))
            if running:
                log.hung = running.group(1).strip()
            else:
                log.timeouts.append(shorten("; ".join(states) or "no progress"))
        elif mark and mark.endswith("done"):
            log.done = True

    for line in text.split("\n"):
        line = ANSI.sub("", line.rstrip("\r"))
        if line.strip() == "The End":
            break
        found = MARK.match(line)
        if found or line.startswith(("Testing unit/", "Testing integration/",
                                     "Testing solo test", "Killing still ")):
            finish()
            mark, rest, details = None, "", []
            if found:
                mark, rest = found.group("mark"), found.group("rest")
        elif len(details) < 400:
            details.append(line)
    finish()
    return log


STAMP = re.compile(r"^\d\d:\d\d:\d\d> (.*)$")


def parse_instances(text):
    """Parse the output of tests/cluster/run.tcl and tests/sentinel/run.tcl."""
    log = UnitLog()
    current = None

    def settle(line):
        """Record the result of the current test if this line has it."""
        nonlocal current
        if current is None:
            return
        failed = re.search(r"\bFAILED: (.*)$", line)
        if failed:
            raised = failed.group(1).startswith("caught an error")
            log.add(current, "err", reason=shorten(failed.group(1)),
                    kind="error" if raised else "assert")
            current = None
        elif re.search(r"(?<![A-VX-Za-z])OK$", line):
            log.add(current, "ok")
            current = None

    for line in text.split("\n"):
        line = ANSI.sub("", line.rstrip("\r"))
        stamped = STAMP.match(line)
        if stamped:
            if current is not None:
                log.add(current, "err", reason="no result printed", kind="error")
            # Tests print their own progress behind the name.
            current = stamped.group(1).split(": ")[0].rstrip(": ")
            settle(line)
        elif line.startswith(">>>>>>>> "):
            log.exceptions.append(shorten(line[9:]))
        elif line.startswith("FAILED: caught an error") and current is None:
            log.exceptions.append(shorten(line))
        elif re.match(r"GOOD! No errors|WARNING \d+ test", line):
            log.done = True
        else:
            settle(line)
    if current is not None:
        log.hung = current
    return log
