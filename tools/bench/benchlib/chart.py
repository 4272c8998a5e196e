"""The results as a chart: one SVG, written by hand.

Bars are relative to the last server's figure (the dashed line), because the
figures themselves lie four orders of magnitude apart; their values stand beside.
"""

from xml.sax.saxutils import escape

from .measure import median
from .report import show

COLOURS = ("#c0392b", "#2c6fbb", "#8e9aa6", "#d9a441", "#5b8c5a", "#7d5ba6")
BAR, GAP, LEFT, RIGHT, TOP = 13, 12, 230, 70, 60
WIDTH, LONGEST = 900, 2.0            # a bar ends at twice the reference


def rows_of(data):
    """(name, {server: figure}) of what was measured, in order."""
    for name, results in data["workloads"].items():
        yield name, {n: median(r) for n, r in results.items() if isinstance(r, list) and r}
    for name, results in data["memory"].items():
        yield name + ", bytes", {n: r["used"] for n, r in results.items()
                                 if isinstance(r, dict)}


def text(x, y, content, **attributes):
    extra = "".join(f' {k.replace("_", "-")}="{v}"' for k, v in attributes.items())
    return f'<text x="{x:.0f}" y="{y:.0f}"{extra}>{escape(content)}</text>'


def legend(names):
    out, x = [], LEFT
    for name, colour in zip(names, COLOURS):
        out += [f'<rect x="{x}" y="34" width="11" height="11" fill="{colour}"/>',
                text(x + 16, 44, name)]
        x += 32 + 7 * len(name)
    return out


def bars(names, figures, reference, y):
    unit = (WIDTH - LEFT - RIGHT) / LONGEST
    out = []
    for i, name in enumerate(names):
        if name not in figures:
            continue
        length = unit * min(LONGEST, figures[name] / reference)
        colour = COLOURS[i % len(COLOURS)]
        out += [f'<rect x="{LEFT}" y="{y + i * BAR}" width="{length:.1f}" '
                f'height="{BAR - 2}" fill="{colour}"/>',
                text(LEFT + length + 5, y + i * BAR + 10, show(figures[name]))]
    return out


def svg(data):
    """The chart as text."""
    names = data["servers"]
    step = BAR * len(names) + GAP
    body, y = legend(names), TOP
    for name, figures in rows_of(data):
        reference = figures.get(names[-1]) or max(figures.values(), default=0)
        if not reference:
            continue
        body.append(text(LEFT - 10, y + step / 2, name, text_anchor="end"))
        body += bars(names, figures, reference, y)
        y += step
    line = LEFT + (WIDTH - LEFT - RIGHT) / LONGEST
    body.append(f'<line x1="{line:.0f}" y1="{TOP - 6}" x2="{line:.0f}" y2="{y}" '
                'stroke="#444" stroke-dasharray="3 3"/>')
    title = text(LEFT, 20, "CPU for each request, microseconds (shorter is better)",
                 font_size=14, font_weight="bold")
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y + GAP}" '
            'font-family="sans-serif" font-size="11">\n'
            f'<rect width="{WIDTH}" height="{y + GAP}" fill="#fff"/>\n'
            + "\n".join([title, *body]) + "\n</svg>\n")
