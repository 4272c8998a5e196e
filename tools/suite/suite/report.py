"""Printing results: the table, the failures, what the lists say.

A failure is printed in the format of expected.txt, with the error where the
reason belongs, so that a line can be copied there and given its reason.
"""

import collections
import re

from .results import failures, totals
from .text import shorten


def print_table(units, baseline):
    """A row for each unit, then one for each group of them. The column `real`
    is what the real server of the baseline passes (in the full profile)."""
    width = max([len(u) for u in units] + [20])
    head = (f"{'unit':{width}} {'ok':>5} {'err':>5} {'xfail':>5} {'exc':>4} "
            f"{'tmo':>4} {'skip':>5} {'sec':>6} {'real':>6}")
    print(head)
    for unit, result in units.items():
        print_row(unit, result, baseline.ok(unit), width)
    print("-" * len(head))
    groups = collections.defaultdict(dict)
    for unit, result in units.items():
        groups[unit.rsplit("/", 1)[0]][unit] = result
    for group, members in groups.items():
        total = totals(members)
        known = [n for n in map(baseline.ok, members) if n is not None]
        print_row(f"= {group} ({len(members)})",
                  dict(total, seconds=total["unit_seconds"]),
                  sum(known) if known else None, width)


def print_row(name, u, real, width):
    line = (f"{name:{width}} {u['ok']:5} {u['err']:5} {u['expected']:5} "
            f"{u['exception']:4} {u['timeout']:4} {u['skipped']:5} "
            f"{u['seconds']:6.0f} {'-' if real is None else real:>6}")
    if u.get("flaky"):
        line += f"  flaky={u['flaky']}"
    if u.get("crashes"):
        line += f"  crash-logs={len(u['crashes'])}"
    print(line)


def print_failures(units, baseline, limit):
    for unit, result in units.items():
        bad = failures(result)
        for name, status, why in bad[:limit]:
            also = "; the real server too" if baseline.fails(unit, name) else ""
            text = f" :: {status}: {shorten(why, 200)}" if why and status != "exception" else ""
            print(f"  {unit} :: {shorten(name, 200)}{text}{also}")
        if len(bad) > limit:
            print(f"  {unit}: ... and {len(bad) - limit} more")


def print_reasons(units, limit):
    """The most frequent reasons, with numbers and quoted values left out."""
    count = collections.Counter()
    for result in units.values():
        for _, status, why in failures(result):
            unknown = re.search(r"(unknown (?:sub)?command)\W+([\w|.-]+)", why)
            text = (" ".join(unknown.groups()).lower() if unknown
                    else re.sub(r"\d+", "N", why.split(" (context")[0]))
            count[shorten(f"{status}: {text}", 110)] += 1
    for reason, n in count.most_common(limit):
        print(f"  {n:5} x {reason}")


def print_expected(expected, units):
    """The lines of expected.txt that these units did not need."""
    for line in expected.unused(units):
        what = "passes now" if line.passed else "no failure of that name"
        print(f"expected.txt:{line.number}: unused, {what}: {line.text()}")


def report(data, baseline, expected, clean, o):
    """Print everything; returns the exit status. With --clean that depends on
    what is held clean, else on every unit that ran."""
    units = data["units"]
    print_table(units, baseline)
    if not all(u["clean"] for u in units.values()):
        if o.reasons:
            print("most frequent reasons:")
            print_reasons(units, o.reasons)
        if o.failures:
            print("failures:")
            print_failures(units, baseline, o.failures)
    print_expected(expected, units)
    if o.clean:
        broken = clean.broken(units)
        for line in broken:
            print(f"held clean by clean.txt, but {line}")
    else:
        broken = [u for u, result in units.items() if not result["clean"]]
    t = data["totals"]
    print(f"suite: ok={t['ok']} err={t['err']} expected={t['expected']} "
          f"exception={t['exception']} timeout={t['timeout']} "
          f"skipped={t['skipped']} units={t['clean']}/{t['units']} clean",
          flush=True)
    return 1 if broken else 0
