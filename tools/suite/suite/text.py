"""Lines for people: progress on stderr, long texts made short."""

import re
import sys

REASON_CHARS = 400
ANSI = re.compile(r"\x1b\[[0-9;]*m")


def note(text):
    """Write a line of progress to stderr."""
    print(text, file=sys.stderr, flush=True)


def shorten(text, limit=REASON_CHARS):
    text = " ".join(text.split())
    return text if len(text) <= limit else text[:limit - 3] + "..."
