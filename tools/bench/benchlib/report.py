"""The tables on stdout, and the verdicts on the budgets.

The first server is the subject; the others are what it is compared with. A
budget is judged by ratio, against the peer of the reference table that is
measured in the same run (the fastest generation of them, if there are several).
"""

from . import disk
from .measure import median, ratio
from .workloads import LOAD, PEERS, SAVE, target

WIDTH = 14


def reference_peer(servers):
    """The server whose figures are in the reference table, or None."""
    known = [s for s in servers[1:] if s.kind in PEERS]
    return min(known, key=lambda s: PEERS.index(s.kind), default=None)


def show(value):
    """Three figures, and no more."""
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 1 else f"{value:.3f}"


def verdict(value, limit):
    """(met?, text) of a ratio against its target, both to two decimals."""
    value, limit = round(value, 2), round(limit, 2)
    met = value <= limit
    return met, f"{value:.2f} <= {limit:.2f} met" if met else f"{value:.2f} > {limit:.2f} MISSED"


class Table:
    """Rows of the first column's width and right-aligned cells."""

    def __init__(self, title, names, extra):
        self.first = 30
        print(f"{title:{self.first}}" + "".join(f"{n[:WIDTH - 1]:>{WIDTH}}" for n in names)
              + "".join(f"  {e}" for e in extra))

    def row(self, name, cells, extra):
        print(f"{name:{self.first}}" + "".join(f"{c:>{WIDTH}}" for c in cells)
              + "".join(f"  {e}" for e in extra), flush=True)


class Report:
    """Prints rows as they are measured, and keeps count of the budgets."""

    def __init__(self, servers, budgets):
        self.servers, self.budgets = servers, budgets
        self.names = [s.name for s in servers]
        self.peer = reference_peer(servers)
        self.met = self.missed = 0
        self.unknown = []
        self.table = None

    def heading(self, title):
        extra = ["best peer"] if len(self.servers) > 1 else []
        if self.budgets and self.peer:
            extra.append(f"budget / {self.peer.name}")
        self.table = Table(title, self.names, extra)

    def judge(self, name, item, value):
        """A cell for the budget column, and its part in the count."""
        if not (self.budgets and self.peer):
            return []
        limit = (getattr(item, "at_most", 0) or getattr(item, "of_best", 0)
                 or target(item, self.peer.kind))
        if limit is None:
            return []
        if value is None:
            self.unknown.append(name)
            return ["not measured"]
        met, text = verdict(value, limit)
        self.met, self.missed = self.met + met, self.missed + (not met)
        return [text]

    def workload(self, workload, results, field="cpu_us"):
        good = {n: r for n, r in results.items() if isinstance(r, list)}
        cells = [show(median(good[n], field)) if n in good else "-" for n in self.names]
        subject = good.get(self.names[0])
        best = self.best(good, self.names[1:], field)
        extra = []
        if len(self.servers) > 1:
            extra.append(f"{ratio(subject, good[best], field):9.2f}" if subject and best else " " * 9)
        peers = [s.name for s in self.servers[1:] if s.kind]
        against = (self.best(good, peers, field) if workload.of_best
                   else self.peer.name if self.peer else None)
        if subject and getattr(workload, "at_most", 0):
            value = median(subject, field)
        else:
            value = ratio(subject, good[against], field) if subject and against in good else None
        extra += self.judge(workload.name, workload, value)
        self.table.row(workload.name, cells, extra + self.reasons(results))

    @staticmethod
    def best(good, names, field):
        """The name of the server with the lowest figure, if any was measured."""
        return min((n for n in names if n in good), key=lambda n: median(good[n], field),
                   default=None)

    def throughput(self, workload, results):
        good = {n: r for n, r in results.items() if isinstance(r, list)}
        cells = [f"{median(good[n], 'per_second'):,.0f}" if n in good else "-"
                 for n in self.names]
        self.table.row(workload.name, cells, [])

    def scene(self, scene, results):
        """Both figures of each server, and the ratios: ours against the promise, and the best peer's."""
        good = {n: r for n, r in results.items() if isinstance(r, list)}
        middle = {n: [show(sorted(side)[len(side) // 2]) for side in zip(*good[n])] for n in good}
        cells = [" / ".join(middle[n]) if n in good else "-" for n in self.names]
        peers = [disk.ratio(good[n]) for n in good if n != self.names[0]]
        extra = [f"{min(peers):9.2f}" if peers else " " * 9] if len(self.names) > 1 else []
        if self.names[0] in good:
            met, text = verdict(disk.ratio(good[self.names[0]]), scene.limit)
            if self.budgets:
                self.met, self.missed = self.met + met, self.missed + (not met)
            extra.append(text)
        self.table.row(scene.name, cells, extra + self.reasons(results))

    def rows(self, scene, results):
        """Each figure of a scene as a row of its own."""
        for row in scene.rows:
            self.workload(row, results, row.field)

    def elements(self, elements, results, first):
        good = {n: r for n, r in results.items() if isinstance(r, dict)}
        cells = [f"{good[n]['used']:.0f} / {good[n]['rss']:.0f}" if n in good else "-"
                 for n in self.names]
        self.table.row(elements.name, cells, self.compare(elements, good, "used", elements.name)
                       + self.reasons(results))
        for field, title, item in (("save_s", "  SAVE, s", SAVE), ("load_s", "  load, s", LOAD)):
            some = {n: r for n, r in good.items() if field in r}
            if some:
                cells = [f"{some[n][field]:.2f}" if n in some else "-" for n in self.names]
                timed = Timed(*item) if first else Timed((), 0)
                self.table.row(title, cells, self.compare(timed, some, field, title.strip()))

    def compare(self, item, good, field, name):
        subject = good.get(self.names[0], {}).get(field)
        others = [r[field] for n, r in good.items() if n != self.names[0]]
        extra = []
        if len(self.servers) > 1:
            extra.append(f"{subject / min(others):9.2f}" if subject and others else " " * 9)
        peer = good.get(self.peer.name, {}).get(field) if self.peer else None
        return extra + self.judge(name, item, subject / peer if subject and peer else None)

    @staticmethod
    def reasons(results):
        return sorted({f"({n}: {r[:60]})" for n, r in results.items() if isinstance(r, str)})

    def summary(self):
        """Print the count; returns whether no budget is missed."""
        if self.budgets and self.peer is None:
            print("budgets: none of " + ", ".join(PEERS) + " is measured beside the subject")
        elif self.budgets:
            print(f"budgets: {self.met} met, {self.missed} missed, "
                  f"{len(self.unknown)} not measured")
        return self.missed == 0


class Timed:
    """A time with its reference figures, shaped as a workload."""

    def __init__(self, reference, budget):
        self.reference, self.budget = reference, budget
