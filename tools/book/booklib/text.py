"""Figures in the text: `<!--f:KEY-->12.3<!--/f-->`, where KEY is a path in the recorded data.

`KEY / KEY` is a quotient. The marks are comments of HTML, which no reader sees.
"""

import re
import sys

MARK = re.compile(r"<!--f:([^>]*?)-->(.*?)<!--/f-->", re.S)


def fill(text, data, path):
    """The text with the figures of the data."""
    def replace(found):
        key = found[1]
        return f"<!--f:{key}-->{shown(key, data, path)}<!--/f-->"
    return MARK.sub(replace, text)


def shown(key, data, path):
    if " / " in key:
        over, under = (look_up(part, data, path) for part in key.split(" / "))
        return format_number(over / under)
    return format_number(look_up(key, data, path))


def look_up(key, data, path):
    at = data
    for part in key.strip().split("."):
        if not isinstance(at, dict) or part not in at:
            sys.exit(f"{path}: no figure {key}")
        at = at[part]
    return at


def format_number(value):
    if isinstance(value, str):
        return value
    if isinstance(value, int) or value >= 100:
        return f"{round(value):,}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"
