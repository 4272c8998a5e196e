"""The hit ratios as a table and as a chart."""

from benchlib.chart import text

COLOURS = ("#c0392b", "#2c6fbb", "#8e9aa6", "#d9a441", "#5b8c5a", "#7d5ba6")
WIDTH, LEFT, BAR, GAP, SCALE = 900, 230, 13, 14, 560


def table(rows, names):
    """Lines of a table: a row for each trace and policy, a column for each cache."""
    first = max(len(f"{trace} {policy}") for trace, policy, _ in rows)
    heading = " ".join(f"{name:>12}" for name in names)
    lines = [f"{'':{first}} {heading}"]
    for trace, policy, ratios in rows:
        cells = (f"{ratios[name]:12.2%}" if name in ratios else f"{'-':>12}" for name in names)
        lines.append(f"{trace + ' ' + policy:{first}} " + " ".join(cells))
    return "\n".join(lines)


def behind(rows, ours):
    """What misses the goals: below another server, or LRU more than 0.01 below the exact one."""
    out = []
    for trace, policy, ratios in rows:
        others = {name: ratio for name, ratio in ratios.items() if name not in (ours, "exact")}
        best = max(others, key=others.get, default=None)
        if best and ratios[ours] < others[best]:
            out.append(f"{trace} {policy}: {ratios[ours]:.2%}, {best} {others[best]:.2%}")
        if policy.endswith("lru") and ratios[ours] < ratios["exact"] - 0.01:
            out.append(f"{trace} {policy}: {ratios[ours]:.2%}, exact {ratios['exact']:.2%}")
    return out


def svg(rows, names):
    """The chart as text: a group of bars for each row, all of them on one scale."""
    body, y = [], 50
    for at, name in enumerate(names):
        x = LEFT + at * 130
        body += [f'<rect x="{x}" y="14" width="11" height="11" fill="{COLOURS[at % len(COLOURS)]}"/>',
                 text(x + 16, 24, name)]
    for trace, policy, ratios in rows:
        body.append(text(10, y + 11, f"{trace} {policy}"))
        for at, name in enumerate(names):
            if name not in ratios:
                continue
            width = ratios[name] * SCALE
            colour = COLOURS[at % len(COLOURS)]
            body += [f'<rect x="{LEFT}" y="{y}" width="{width:.0f}" height="{BAR - 2}" fill="{colour}"/>',
                     text(LEFT + width + 5, y + 10, f"{ratios[name]:.1%}")]
            y += BAR
        y += GAP
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y}" '
            f'font-family="sans-serif" font-size="12">\n' + "\n".join(body) + "\n</svg>\n")
