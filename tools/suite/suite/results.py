"""Results as data: what a unit's run amounts to, and two runs side by side.

A test is a dict: name, status (ok, err, timeout, skip) and, where they apply,
ms, reason, kind, flaky, expected (why it may fail). A unit's result holds its
tests and what went wrong outside of any test.
"""

import collections
import re

FIELDS = ("ok", "err", "expected", "exception", "timeout", "skipped")


def failures(result, with_expected=False):
    """What keeps a unit from being clean, as (name, status, reason)."""
    bad = [(t["name"], t["status"], t.get("reason", "")) for t in result["tests"]
           if t["status"] in ("err", "timeout")
           and (with_expected or not t.get("expected"))]
    texts = result["exceptions"] + [
        e["text"] for e in result.get("expected_exceptions", []) if with_expected]
    bad += [("[exception] " + e, "exception", e) for e in texts]
    return bad + [("[timeout] " + e, "timeout", e) for e in result["timeouts"]]


def is_clean(result):
    return not failures(result)


def keyed(tests):
    """Tests by (name, n-th of that name)."""
    seen, out = collections.Counter(), {}
    for test in tests:
        out[test["name"], seen[test["name"]]] = test
        seen[test["name"]] += 1
    return out


def without_numbers(name):
    return re.sub(r"\d+", "N", name)


def match_tests(old, new):
    """Pairs of a test and the test of that name in another run, or None.

    Some names have random numbers in them: what finds no partner by its exact
    name gets one by its name without numbers."""
    pairs, rest, new = [], [], keyed(new)
    for key, test in keyed(old).items():
        if key in new:
            pairs.append((test, new.pop(key)))
        else:
            rest.append(test)
    loose = collections.defaultdict(collections.deque)
    for test in new.values():
        loose[without_numbers(test["name"])].append(test)
    for test in rest:
        others = loose[without_numbers(test["name"])]
        pairs.append((test, others.popleft() if others else None))
    return pairs


def merge_retry(result, again):
    """Take over what passed in a second run, marked as flaky."""
    known = set()
    for old, test in match_tests(result["tests"], again["tests"]):
        known.add(id(test))
        if test and old["status"] in ("err", "timeout") \
                and test["status"] == "ok":
            old.update(status="ok", flaky=True)
            old.pop("expected", None)
    result["tests"] += [dict(test, flaky=True) for test in again["tests"]
                        if id(test) not in known]
    for kind in ("exceptions", "timeouts"):
        if len(again[kind]) < len(result[kind]):
            result[kind] = again[kind]
    result["crashes"] += [c for c in again["crashes"]
                          if c not in result["crashes"]]
    result["seconds"] = round(result["seconds"] + again["seconds"], 1)
    result["runs"] += again["runs"]


def summarise(result):
    """Add the counts of a unit's result to it."""
    count = collections.Counter("expected" if t.get("expected") else t["status"]
                                for t in result["tests"])
    result.update(
        ok=count["ok"], err=count["err"],
        expected=count["expected"] + len(result.get("expected_exceptions", [])),
        exception=len(result["exceptions"]),
        timeout=count["timeout"] + len(result["timeouts"]),
        skipped=count["skip"] + len(result["ignored"]),
        flaky=sum(1 for t in result["tests"] if t.get("flaky")),
        clean=is_clean(result))
    return result


def totals(units):
    """The counts of many units together."""
    out = {f: sum(u.get(f, 0) for u in units.values()) for f in FIELDS}
    out["flaky"] = sum(u.get("flaky", 0) for u in units.values())
    out["units"] = len(units)
    out["clean"] = sum(1 for u in units.values() if u["clean"])
    out["unit_seconds"] = round(sum(u["seconds"] for u in units.values()), 1)
    return out


class Baseline:
    """What a real server fails in the same suite, kept small: for each unit
    the number of tests that pass and a map of the others to their reasons."""

    def __init__(self, data):
        self.server, self.units = data["server"], data["units"]

    @staticmethod
    def shrink(data):
        """The baseline in the results of a whole run."""
        units = {}
        for name, unit in data["units"].items():
            bad = {t: shorten_reason(why) for t, _, why in failures(unit, True)}
            units[name] = {"ok": unit["ok"], "seconds": round(unit["seconds"])}
            if bad:
                units[name]["fails"] = bad
        return {"suite": data["suite"], "server": data["server"],
                "cpus": data["cpus"], "units": units}

    def ok(self, unit):
        return self.units.get(unit, {}).get("ok")

    def fails(self, unit, name):
        """Does the real server fail this test too?"""
        known = self.units.get(unit, {}).get("fails", {})
        return name in known or without_numbers(name) in map(
            without_numbers, known)

    def seconds(self, unit):
        return self.units.get(unit, {}).get("seconds", 0)


def shorten_reason(text, limit=120):
    text = re.sub(r"/\S*/tests/", "tests/", text)       # of one run's work copy
    return text if len(text) <= limit else text[:limit - 3] + "..."
