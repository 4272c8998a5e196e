"""The command line of tools/suite/run."""

import argparse
import glob
import os
import shutil

from .tree import PROGRAMS, newest_tree

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PROJECT = os.path.dirname(os.path.dirname(HERE))
PEERS = os.path.join(PROJECT, "tests", ".peers")

# What --mode sets: whose words the server uses, and the defaults that the suite's tests take for
# granted. Valkey 8 deletes with UNLINK where Redis deletes with DEL.
MODES = {
    "redis": [["extended-redis-compatibility", "yes"]],
    "valkey": [["extended-redis-compatibility", "no"],
               ["lazyfree-lazy-eviction", "yes"], ["lazyfree-lazy-expire", "yes"],
               ["lazyfree-lazy-server-del", "yes"], ["lazyfree-lazy-user-del", "yes"],
               ["lazyfree-lazy-user-flush", "yes"], ["repl-backlog-size", "10mb"]],
}

DESCRIPTION = """Run the Tcl suite of Valkey against a Redis-compatible server.

  run --clean --profile quick         what CI holds
  run --units unit/expire,unit/type/* --failures 20
  run --all --jobs 2 --out results.json
  run --tls --units unit/tls
"""


def newest_server():
    """The server that was built last, in whatever profile."""
    target = os.environ.get("CARGO_TARGET_DIR", os.path.join(PROJECT, "target"))
    built = glob.glob(os.path.join(target, "*", "aeris-server"))
    return max(built, key=os.path.getmtime, default=None)


def names(text):
    return [name for name in text.split(",") if name]


def setting(text):
    pair = text.split(None, 1)
    if len(pair) != 2:
        raise argparse.ArgumentTypeError("wants 'name value'")
    return pair


def build_parser():
    p = argparse.ArgumentParser(
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="A value that begins with a dash needs '=': --tags='-slow'. Exit "
               "status: 0 when all that ran is clean (with --clean: all that "
               "clean.txt holds), 1 if not, 2 for bad usage.")
    p.add_argument("--src", metavar="DIR", default=newest_tree(PEERS),
                   help="the suite's tree (default: the one fetch.sh left in "
                        "tests/.peers)")
    p.add_argument("--server", metavar="BIN", default=newest_server(),
                   help="the server under test (default: the one built last)")
    for program in PROGRAMS[2:]:
        p.add_argument(f"--{program}", metavar="BIN",
                       dest="bin_" + program.replace("-", "_"),
                       help="default: beside the server, in the tree, or on "
                            "the PATH")
    add_choice(p.add_argument_group("what to run"))
    add_manner(p.add_argument_group("how"))
    add_results(p.add_argument_group("results"))
    return p


def add_choice(g):
    g.add_argument("--clean", action="store_true",
                   help="the units of clean.txt; fails if one is not clean")
    g.add_argument("--units", type=names, action="extend", default=[],
                   metavar="U,...", help="units or patterns (unit/type/*)")
    g.add_argument("--all", action="store_true",
                   help="all units of test_helper.tcl (the default)")
    g.add_argument("--cluster", action="store_true", help="the cluster units")
    g.add_argument("--sentinel", action="store_true", help="the sentinel units")
    g.add_argument("--profile", choices=("quick", "full"), default="full",
                   help="quick: without slow tests and, unless they are named, "
                        "slow units")
    g.add_argument("--skip-units", type=names, action="extend", default=[],
                   metavar="U,...", help="units or patterns to leave out")
    g.add_argument("--skip", metavar="FILE",
                   help="names of tests to leave out, one a line "
                        "(a line that begins with / is a regexp)")
    g.add_argument("--tags", help="tags to allow, or with '-' to deny")
    g.add_argument("--list", action="store_true", help="list the units")


def add_manner(g):
    g.add_argument("--mode", choices=tuple(MODES),
                   help="whose words and defaults the servers use "
                        "(default: those of the suite, if the server is "
                        "aeris)")
    g.add_argument("-j", "--jobs", type=int, default=2,
                   help="units at once (%(default)s)")
    g.add_argument("--clients", type=int, default=1,
                   help="test clients per unit (%(default)s)")
    g.add_argument("--timeout-per-unit", type=int, default=900, metavar="S",
                   help="kill a unit after S seconds (%(default)s)")
    g.add_argument("--test-timeout", type=int, default=120, metavar="S",
                   help="a test without progress for S seconds is hung "
                        "(%(default)s)")
    g.add_argument("--start-wait", type=int, default=15, metavar="S",
                   help="how long the suite waits for the start message of "
                        "a server (%(default)s)")
    g.add_argument("--resume", type=int, default=5, metavar="N",
                   help="start a unit again without the test that hung or "
                        "killed the server, up to N times (%(default)s)")
    g.add_argument("--retries", type=int, default=0, metavar="N",
                   help="run a unit that is not clean up to N times more; "
                        "what passes then counts, as flaky (%(default)s)")
    g.add_argument("--config", type=setting, action="append", default=[],
                   metavar="'K V'", help="configuration for every server")
    g.add_argument("--tls", action="store_true",
                   help="over TLS, with certificates made for the run; "
                        "expected-tls.txt is read too")
    g.add_argument("--suite-arg", action="append", default=[],
                   dest="suite_args", metavar="ARG",
                   help="pass ARG to the suite (--suite-arg=--singledb)")
    g.add_argument("--other-server", metavar="BIN",
                   default=shutil.which("redis-server"),
                   help="a real server for the units that need one of "
                        "another version (%(default)s)")
    g.add_argument("--no-probe", action="store_true",
                   help="do not look at the server before the run")
    g.add_argument("--tclsh", default=shutil.which("tclsh") or "tclsh",
                   help="(%(default)s)")


def add_results(g):
    g.add_argument("--expected", metavar="FILE",
                   default=os.path.join(HERE, "expected.txt"),
                   help="what may fail (%(default)s)")
    g.add_argument("--expected-tls", metavar="FILE",
                   default=os.path.join(HERE, "expected-tls.txt"),
                   help="what may fail over TLS besides (%(default)s)")
    g.add_argument("--clean-list", metavar="FILE",
                   default=os.path.join(HERE, "clean.txt"),
                   help="what is held clean (%(default)s)")
    g.add_argument("--baseline", metavar="FILE",
                   default=os.path.join(HERE, "baseline-valkey-8.0.json"),
                   help="what a real server passes (%(default)s)")
    g.add_argument("--out", metavar="FILE", help="write results as JSON")
    g.add_argument("--logs", metavar="DIR",
                   help="keep the output of every unit and the server logs "
                        "of every unit in which something failed")
    g.add_argument("--failures", type=int, default=10, metavar="N",
                   help="print up to N failures of each unit (%(default)s)")
    g.add_argument("--reasons", type=int, default=0, metavar="N",
                   help="print the N most frequent reasons (%(default)s)")
    g.add_argument("--report", metavar="FILE",
                   help="print the results in FILE; runs nothing")
    g.add_argument("--make-baseline", metavar="FILE",
                   help="add the results of --report to a baseline")


def parse_arguments(argv=None):
    p = build_parser()
    o = p.parse_args(argv)
    o.dropped = []
    if o.report:
        return o
    if not o.src:
        p.error("no suite in tests/.peers: run tools/suite/fetch.sh, or give --src")
    if not (o.server or o.list):
        p.error("no server is built: run `make`, or give --server")
    if not o.mode and "aeris" in os.path.basename(o.server or ""):
        o.mode = "redis" if os.path.basename(o.src).startswith("redis") else "valkey"
    if o.tls:
        o.suite_args = ["--tls"] + o.suite_args
    if o.mode:
        o.config = MODES[o.mode] + o.config
    if o.skip:
        o.skip = os.path.abspath(o.skip)
        if not os.path.isfile(o.skip):
            p.error(f"no file {o.skip}")
    return o
