"""The commands of `tools/book/book`."""

import argparse
import json
import pathlib
import re
import sys

from . import drawings, measure, plots, scenarios, text, traces

ROOT = pathlib.Path(__file__).resolve().parents[3]


def main():
    parser = argparse.ArgumentParser(
        prog="book", description="Drawings and figures of the book in ae/book.")
    parser.add_argument("--root", type=pathlib.Path, default=ROOT,
                        help="the folder of the project")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("draw", help="write the SVG files, and the recorded figures into the text")
    commands.add_parser("check", help="the files that `draw` would change; status 1 if there are any")
    commands.add_parser("measure", help="run the lessons under load, and record their figures")
    tracing = commands.add_parser("trace", help="run a server with each fault, and record traces")
    tracing.add_argument("--server", required=True, help="the program, of a debug build")
    options = parser.parse_args()
    book = options.root / "ae" / "book"
    if options.command == "measure":
        write_json(book / "data" / "figures.json", measure.measure(options.root))
    elif options.command == "trace":
        recorded = {"machine": measure.machine(), "modes": scenarios.record(options.server)}
        write_json(book / "data" / "traces.json", recorded)
    changed = apply(options.root, book, write=options.command != "check")
    if options.command == "check" and changed:
        for path, reason in changed:
            print(f"{path}: {reason}")
        return 1
    return 0


def write_json(path, data):
    """One line for each span or figure."""
    text = json.dumps(data, sort_keys=True)
    path.write_text(re.sub(r"(?<=[]}]), |(?<=\[)(?=\[)", lambda found: found[0].strip() + "\n", text) + "\n")


def apply(root, book, write):
    """Writes what differs from what the data say, or lists it."""
    figures = json.loads((book / "data" / "figures.json").read_text())
    recorded = json.loads((book / "data" / "traces.json").read_text())
    wanted = {}
    for name, picture in {**drawings.all(), **plots.all(figures), **traces.all(recorded)}.items():
        wanted[book / "figures" / f"{name}.svg"] = picture
    for path in [root / "ae" / "README.md", *sorted(book.glob("*.md"))]:
        data = {**figures, "trace": recorded["modes"], "recorded": recorded["machine"]}
        wanted[path] = text.fill(path.read_text(), data, path)
    changed = []
    for path, content in wanted.items():
        before = path.read_text() if path.exists() else None
        if before != content:
            changed.append((path.relative_to(root), "not what tools/book/book draws or fills in"))
            if write:
                path.write_text(content)
    for path in sorted((book / "figures").glob("*")):
        if path not in wanted:
            changed.append((path.relative_to(root), "no drawing of tools/book/book"))
            if write:
                path.unlink()
    return changed
