"""The suite's source tree, and the programs that its tests run.

A tree is Valkey's or Redis's source package with its tests/ directory; it need
not be built and nothing is written to it. Units are named by their path below
tests/ (unit/type/zset, integration/aof). The suites that drive many instances
have a runner of their own and are addressed as cluster/NAME and sentinel/NAME;
a tree without such a cluster runner (Valkey 8 and later) has unit/cluster/*.
"""

import fnmatch
import glob
import os
import re
import shutil

from .text import note

# Programs of a built tree, without the redis-/valkey- prefix.
PROGRAMS = ("server", "sentinel", "cli", "benchmark", "check-rdb", "check-aof")

# Never run unless named in --units: these need modules that the suite builds.
NEEDS_BUILT_MODULES = ("unit/moduleapi/*",)

# What --profile quick leaves out: the units that took more than two minutes
# each on a 2-core machine (half of the whole time together), and the tests
# that the suites themselves call slow.
QUICK_SKIP_UNITS = ("unit/memefficiency", "integration/replication",
                    "integration/replication-psync",
                    "integration/dual-channel-replication")
QUICK_TAGS = "-slow"


class Tree:
    """An unpacked Redis or Valkey source tree: what it is and what it tests."""

    def __init__(self, path):
        self.path = os.path.abspath(path)
        self.helper = os.path.join(self.path, "tests", "test_helper.tcl")
        if not os.path.isfile(self.helper):
            raise SystemExit(f"no tests/test_helper.tcl in {self.path}")
        version = self._read("src", "version.h")
        found = (re.search(r'define VALKEY_VERSION\s+"([^"]+)"', version)
                 or re.search(r'define REDIS_VERSION\s+"([^"]+)"', version))
        self.family = "valkey" if "VALKEY_VERSION" in version else "redis"
        self.version = found.group(1) if found else "unknown"
        self.name = f"{self.family}-{self.version}"

    def _read(self, *parts):
        try:
            with open(os.path.join(self.path, *parts), errors="replace") as f:
                return f.read()
        except OSError:
            return ""

    def instance_units(self, kind):
        """Units of tests/cluster or tests/sentinel, as KIND/NAME."""
        if not os.path.isfile(os.path.join(self.path, "tests", kind, "run.tcl")):
            return []
        folder = os.path.join(self.path, "tests", kind, "tests")
        return [f"{kind}/{f[:-4]}" for f in sorted(os.listdir(folder))
                if f.endswith(".tcl")]

    def helper_units(self):
        """Units that test_helper.tcl runs: its own list, or every file."""
        listed = re.search(r"set ::all_tests \{(.*?)\}",
                           self._read("tests", "test_helper.tcl"), re.S)
        if listed and listed.group(1).split():
            return listed.group(1).split()
        units = []
        for folder in ("unit", "unit/type", "unit/cluster", "integration"):
            full = os.path.join(self.path, "tests", folder)
            if os.path.isdir(full):
                units += sorted(f"{folder}/{f[:-4]}" for f in os.listdir(full)
                                if f.endswith(".tcl"))
        return units

    def groups(self):
        """All units by group: main, cluster, sentinel."""
        main = [u for u in self.helper_units()
                if not any(fnmatch.fnmatch(u, p) for p in NEEDS_BUILT_MODULES)]
        cluster = self.instance_units("cluster")
        if not cluster:
            cluster = [u for u in main if u.startswith("unit/cluster/")]
            main = [u for u in main if u not in cluster]
        return {"main": main, "cluster": cluster,
                "sentinel": self.instance_units("sentinel")}

    def has_unit(self, unit):
        return os.path.isfile(os.path.join(self.path, "tests", unit + ".tcl"))


def is_instance_unit(unit):
    return unit.startswith(("cluster/", "sentinel/"))

def find_programs(tree, o):
    """The programs to link into the work copies, by name without prefix: the
    ones given, else those beside the server or in the tree, else on the PATH."""
    found = {}
    for program in PROGRAMS:
        given = getattr(o, "bin_" + program.replace("-", "_"), None)
        path = (executable(given) if given
                else executable(o.server) if program in ("server", "sentinel")
                else find_program(program, tree, os.path.dirname(os.path.abspath(o.server))))
        if path:
            found[program] = path
        else:
            note(f"no {program} found: tests that need it will fail")
    return found


def executable(path):
    path = os.path.abspath(path)
    if not os.access(path, os.X_OK):
        raise SystemExit(f"not an executable: {path}")
    return path


def find_program(program, tree, beside):
    names = [f"{family}-{program}" for family in
             dict.fromkeys(("aeris", tree.family, "redis", "valkey"))]
    near = [os.path.join(folder, name)
            for folder in (beside, os.path.join(tree.path, "src"))
            for name in names]
    return next((path for path in near if os.access(path, os.X_OK)),
                next(filter(None, map(shutil.which, names)), None))


def newest_tree(folder):
    """The tree that fetch.sh left below this folder, or None."""
    found = sorted(glob.glob(os.path.join(folder, "*", "tests", "test_helper.tcl")))
    return os.path.dirname(os.path.dirname(found[-1])) if found else None


def choose_units(tree, o):
    """The units that the options name, in the suite's order. The quick profile
    also adds to the tags."""
    groups = tree.groups()
    known = groups["main"] + groups["cluster"] + groups["sentinel"]
    wanted = []
    for name in o.units:
        found = [u for u in known if fnmatch.fnmatch(u, name)]
        if not found and tree.has_unit(name):
            found = [name]
        if not found:
            raise SystemExit(f"no such unit: {name}")
        wanted += found
    named = bool(wanted)
    if o.all or not (named or o.cluster or o.sentinel):
        wanted += groups["main"]
    if o.cluster:
        wanted += groups["cluster"]
    if o.sentinel:
        wanted += groups["sentinel"]
    leave = list(o.skip_units)
    if o.profile == "quick":
        leave += () if named else QUICK_SKIP_UNITS
        o.tags = f"{o.tags or ''} {QUICK_TAGS}".strip()
    return [u for u in dict.fromkeys(wanted)
            if not any(fnmatch.fnmatch(u, pattern) for pattern in leave)]
