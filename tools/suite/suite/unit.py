"""One unit, run to its end whatever the server does.

Each unit (one .tcl file) runs in a Tcl process group of its own, so that a
unit that crashes, hangs or raises costs only itself:

  * a test that makes no progress for --test-timeout seconds is a time-out, and
    the unit is started again without that test (--resume times), so that the
    tests behind it are still counted; the same for a test during which the
    server dies;
  * a unit that runs longer than --timeout-per-unit is killed, with everything
    it started.
"""

import os
import re
import shutil
import subprocess
import threading
import time

from .output import parse_helper, parse_instances, reason_of
from .process import child_env, kill_all
from .results import is_clean, merge_retry, summarise
from .text import shorten
from .tree import is_instance_unit
from .workcopy import PORTS

CRASH = re.compile(
    r"panicked at|BUG REPORT START|AddressSanitizer|ThreadSanitizer|"
    r"has overflowed its stack|memory allocation of \d+ bytes failed|"
    r"fatal runtime error|ASSERTION FAILED")
SERVER_GONE = re.compile(
    r"I/O error|connection refused|broken pipe|connection reset by peer|"
    r"can not find channel|socket closed", re.I)

# Units that also start a server of another version.
WITH_OTHER_SERVER = ("integration/cross-version-replication",)


class UnitRunner:
    """Runs units, one at a time for each work copy; several threads may use it."""

    def __init__(self, options, expected):
        self.options, self.expected = options, expected
        self.stop = threading.Event()

    def command(self, copy, unit, skip):
        o = self.options
        if is_instance_unit(unit):
            kind, name = unit.split("/", 1)
            return ([o.tclsh, f"tests/{kind}/run.tcl", "--single",
                     f"{name}.tcl", "--dont-clean"]
                    + [w for pair in o.config for w in ["--config"] + pair]
                    + o.suite_args)
        command = [o.tclsh, "tests/test_helper.tcl", "--single", unit,
                   "--clients", str(o.clients), "--durable", "--dont-clean",
                   "--timeout", str(o.test_timeout),
                   "--baseport", str(copy.base),
                   "--portcount", str(PORTS)]
        if o.tags:
            command += ["--tags", o.tags]
        if o.skip:                        # must precede --skiptest (Redis 7.0)
            command += ["--skipfile", o.skip]
        for name in [*self.expected.not_run(unit), *skip]:
            command += ["--skiptest", name]
        # The settings are for all servers of a unit, and not all of them are a real server's.
        if unit in WITH_OTHER_SERVER and o.other_server:
            return command + ["--other-server-path", o.other_server] + o.suite_args
        for pair in o.config:
            command += ["--config"] + pair
        return command + o.suite_args

    def run_once(self, copy, unit, skip):
        """Run a unit once.  Returns a UnitLog, with .seconds and .crashes."""
        o = self.options
        copy.clean()
        log_path = os.path.join(copy.path, "unit.log")
        started = time.monotonic()
        with open(log_path, "wb") as out:
            proc = subprocess.Popen(
                self.command(copy, unit, skip), cwd=copy.path, stdout=out,
                stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                env=child_env(), start_new_session=True)
            killed = self.watch(proc, unit, log_path, started)
            kill_all(proc, copy.path)
        with open(log_path, "rb") as f:
            text = f.read().decode("utf-8", "backslashreplace")
        log = (parse_instances if is_instance_unit(unit) else parse_helper)(text)
        log.seconds = time.monotonic() - started
        log.crashes = self.crashes(copy)
        self.conclude(copy, unit, log, killed, proc.returncode, text)
        if o.logs:
            self.save_logs(copy, unit, log, log_path)
        return log

    def watch(self, proc, unit, log_path, started):
        """Wait for the unit's end; returns why it has to be killed, if it has."""
        size, moved = 0, started
        # test_helper.tcl watches its own progress; this is its second.
        quiet = self.options.test_timeout + (0 if is_instance_unit(unit) else 60)
        limit = self.options.timeout_per_unit
        while proc.poll() is None:
            time.sleep(0.1)
            now, new = time.monotonic(), os.path.getsize(log_path)
            if new != size:
                size, moved = new, now
            if self.stop.is_set():
                return "interrupted"
            if now - started > limit:
                return f"unit ran for more than {limit} s"
            if now - moved > quiet:
                return f"no output for {quiet} s"
        return None

    def conclude(self, copy, unit, log, killed, code, text):
        """Find out why a unit that did not come to its end did not."""
        if log.hung and not killed and is_instance_unit(unit):
            log.add(log.hung, "err", reason="runner ended", kind="error")
            log.hung = None
        if killed or log.timeouts:
            name = log.hung or self.test_in_progress(copy)
            if name and name not in log.names():
                log.hung, log.timeouts = name, []
            elif not log.hung:
                log.timeouts = log.timeouts or [killed]
        if log.hung:
            log.add(log.hung, "timeout",
                    reason=killed or f"no progress for {self.options.test_timeout} s")
        if not (log.done or log.hung or log.timeouts or log.exceptions):
            lines = [l for l in text.split("\n") if l.strip()]
            reason, kind = reason_of(lines)
            if kind != "error":
                reason = shorten(" | ".join(lines[-3:]))
            log.exceptions.append(f"ended early, status {code}: {reason}")

    @staticmethod
    def test_in_progress(copy):
        """The last test that the suite announced in a server's log file."""
        name = None
        for path in copy.server_logs():
            try:
                with open(path, "rb") as f:
                    f.seek(max(0, os.path.getsize(path) - 4_000_000))
                    text = f.read().decode("utf-8", "backslashreplace")
            except OSError:
                continue
            for found in re.finditer(
                    r"^### (?:Starting test|Starting server for test"
                    r"|Restarting server for test) (.+) in \S*tests/\S+\.tcl$",
                    text, re.M):
                name = found.group(1)
        return name

    @staticmethod
    def crashes(copy):
        """First lines of crash reports in the servers' log files."""
        found = {}
        for path in copy.server_logs():
            try:
                with open(path, errors="replace") as f:
                    lines = f.read(8_000_000).split("\n")
            except OSError:
                continue
            for i, line in enumerate(lines):
                if CRASH.search(line) and not line.startswith("###"):
                    text = shorten(" ".join(lines[i:i + 2]), 240)
                    if len(found) < 50:        # one of a kind, by its text
                        found.setdefault(re.sub(r"\d+", "N", text), text)
        return list(found.values())

    def save_logs(self, copy, unit, log, log_path):
        stem = os.path.join(self.options.logs, unit.replace("/", "_"))
        shutil.copyfile(log_path, stem + ".log")
        shutil.rmtree(stem + ".servers", ignore_errors=True)
        if failed(log):
            os.makedirs(stem + ".servers")
            for path in copy.server_logs():
                if os.path.getsize(path) < 50_000_000:
                    flat = os.path.relpath(path, copy.path).replace("/", "_")
                    shutil.copyfile(path, os.path.join(stem + ".servers", flat))

    def run_unit(self, copy, unit):
        """Run a unit, and --retries times more while it is not clean."""
        result = self.run_resumed(copy, unit)
        for _ in range(self.options.retries):
            if is_clean(result) or self.stop.is_set():
                break
            merge_retry(result, self.run_resumed(copy, unit))
        return summarise(result)

    def run_resumed(self, copy, unit):
        """Run a unit; while a test of it hangs or kills the server for the
        tests behind it, run it again without that test."""
        skip, seconds, crashes, runs = {}, 0.0, [], 0
        while True:
            log = self.run_once(copy, unit, skip)
            runs += 1
            seconds += log.seconds
            crashes += [c for c in log.crashes if c not in crashes]
            culprit = culprit_of(log)
            if (culprit is None or culprit["name"] in skip
                    or is_instance_unit(unit) or self.stop.is_set()
                    or len(skip) >= self.options.resume
                    or seconds > self.options.timeout_per_unit):
                break
            skip[culprit["name"]] = culprit
        for test in log.tests:                    # skipped only by ourselves
            if test["status"] == "skip" and test["name"] in skip:
                test.update(skip[test["name"]])
        result = {"tests": log.tests, "exceptions": log.exceptions,
                  "ignored": log.ignored, "timeouts": log.timeouts,
                  "crashes": crashes, "seconds": round(seconds, 1), "runs": runs}
        self.expected.judge(unit, result)
        return result


def failed(log):
    """Did anything at all go wrong? (Expected failures leave their logs too.)"""
    return not is_clean({"tests": log.tests, "exceptions": log.exceptions,
                         "timeouts": log.timeouts})


def culprit_of(log):
    """The test that keeps the tests behind it from being run, if any."""
    if log.hung:
        return next((t for t in log.tests if t["name"] == log.hung
                     and t["status"] == "timeout"), None)
    dead = [t for t in log.tests
            if t["status"] == "err" and SERVER_GONE.search(t["reason"])]
    if len(dead) > 1 or dead and (log.exceptions or not log.done):
        return dict(dead[0], reason="the server died: " + dead[0]["reason"])
    return None
