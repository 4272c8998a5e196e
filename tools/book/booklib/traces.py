"""The drawings of recorded traces: above the healthy server, below the one with a fault."""

from .svg import BLUE, GREEN, GREY, INK, LIGHT, ORANGE, PAPER, RED, VIOLET, YELLOW, Page

COLOURS = {"turn": GREY, "nested turn": VIOLET, "before_sleep": GREEN, "poll": PAPER, "after_sleep": GREEN,
           "readable": BLUE, "writable": BLUE, "read": BLUE, "parse": BLUE, "command": ORANGE, "write": BLUE,
           "reply build": BLUE,
           "fsync": RED, "blocking fsync": RED, "aof write": RED, "aof flush": RED, "rehash": VIOLET,
           "expire": VIOLET, "timer": YELLOW, "job": YELLOW}
WIDTH, LEFT, RIGHT, ROW = 760, 16, 16, 20
TITLES = {
    "no_drain": "An edge is not read to its end",
    "level": "A socket is reported again and again",
    "slow_command": "A script of 60 ms, and another client",
    "blocking_fsync": "The loop waits for the disk",
    "no_budget": "A client that sends 1.5 MB",
    "rehash_at_once": "A table grows",
    "sampled_expiry": "1,000 of 20,000 keys expire",
}


def all(recorded):
    return {f"trace-{mode.replace('_', '-')}": picture(mode, data) for mode, data in recorded["modes"].items()}


def picture(mode, data):
    parts = [("without the fault", data["healthy"]), (f"--teach {mode.replace('_', '-')}", data["fault"])]
    heights = [panel_height(part) for _, part in parts]
    page = Page(WIDTH, sum(heights) + 74, f"{TITLES[mode]}: a healthy trace, and one with the fault")
    y = 12
    for (title, part), height in zip(parts, heights):
        panel(page, y, title, part, data["length_us"])
        y += height
    axis(page, y + 6, data["length_us"])
    return page.render()


def depths(part):
    loop = [span[4] for span in part["spans"] if span[4] >= 0]
    return min(max(loop, default=0), 5) + 1, any(span[4] < 0 for span in part["spans"])


def panel_height(part):
    rows, other = depths(part)
    return 26 + (rows + (1 if other else 0)) * (ROW + 2) + (6 if other else 0) + 16


def panel(page, y, title, part, length):
    page.text(LEFT, y + 13, title, 13, bold=True, mono=title.startswith("--"))
    rows, other = depths(part)
    top = y + 24
    scale = (WIDTH - LEFT - RIGHT) / length
    page.box(LEFT, top - 3, WIDTH - LEFT - RIGHT, rows * (ROW + 2) + 4, "#fafbfc", "#d5dae0", 2, 0.8)
    for name, category, start, time, depth, note in part["spans"]:
        if depth > 5:
            continue
        row = depth if depth >= 0 else rows + 0.3
        draw_span(page, LEFT + start * scale, top + row * (ROW + 2), max(time * scale, 0.6), name, category, note)
    if other:
        page.text(WIDTH - RIGHT, y + 13, "lowest row: the thread of the AOF", 10, "end", "#7b8794")


def draw_span(page, x, y, width, name, category, note):
    colour = COLOURS.get(category, GREY)
    fill = LIGHT.get(colour, PAPER) if width > 3 else colour
    page.box(x, y, width, ROW, fill, colour if colour != PAPER else "#c5ccd3", 1.5, 0.7)
    label = name if name != "poll" else "poll (sleeps)"
    with_note = f"{label}: {note}" if note else label
    for shown in (with_note, label, name):
        if len(shown) * 6.1 + 6 < width:
            page.text(x + width / 2, y + ROW / 2 + 3.6, shown, 10, "middle", INK)
            return


def axis(page, y, length):
    page.line(LEFT, y, WIDTH - RIGHT, y, "#7b8794")
    step = next(s for s in (100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000, 200_000)
                if length / s <= 9)
    at = 0
    while at <= length:
        x = LEFT + at * (WIDTH - LEFT - RIGHT) / length
        page.line(x, y, x, y + 5, "#7b8794")
        shown = f"{at / 1000:g} ms" if step >= 500 else f"{at} us"
        page.text(min(x, WIDTH - RIGHT - 14), y + 18, shown, 10, "middle", "#52606d")
        at += step
