"""The plots of recorded figures: CPU for each request, and requests a second."""

import math

from .svg import BLUE, GREEN, GREY, ORANGE, RED, VIOLET, Page

SERVERS = [("02_threads", "a thread each", VIOLET), ("03_poll", "poll", RED), ("04_level", "epoll, level", BLUE),
           ("05_edge", "epoll, edge", ORANGE), ("06_ready_bit", "ready bit (ae)", GREEN)]
COUNTS = ["1", "100", "10000"]


def all(figures):
    return {"road-cpu": cpu(figures), "road-rate": rate(figures), "road-memory": memory(figures)}


def cpu(figures):
    page = Page(760, 372, "CPU of the server for each request, by the number of connections")
    two_panels(page, figures, "cpu_us", "CPU for each request, us", 5, 20_000)
    return page.render()


def rate(figures):
    page = Page(760, 372, "Requests a second, by the number of connections")
    two_panels(page, figures, "requests_a_second", "requests a second", 100, 200_000)
    return page.render()


def two_panels(page, figures, what, unit, low, high):
    for at, (key, title) in enumerate([("of1", "one request outstanding"), ("of50", "50 requests outstanding")]):
        left = 62 + at * 360
        frame(page, left, title, unit if at == 0 else "", low, high)
        for name, label, colour in SERVERS:
            points = []
            for place, count in enumerate(COUNTS):
                row = figures["road"][name][count].get(key)
                if row:
                    x = left + 30 + place * 110
                    y = 270 - height(row[what], low, high)
                    points.append((x, y))
            page.path(points, colour, 2)
            for x, y in points:
                page.dot(x, y, 3.4, colour)
    legend(page, 318)
    source(page, figures, 362)


def height(value, low, high):
    """220 px for the range, by logarithm."""
    return 220 * (math.log(max(value, low)) - math.log(low)) / (math.log(high) - math.log(low))


def frame(page, left, title, unit, low, high):
    page.text(left, 28, title, 13, bold=True)
    page.text(left - 46, 28 + 15, unit, 10, fill=GREY)
    power = 10 ** math.ceil(math.log10(low))
    while power <= high:
        y = 270 - height(power, low, high)
        page.line(left, y, left + 280, y, "#e4e7eb", 1)
        page.text(left - 6, y + 4, f"{power:,}", 10, "end", "#52606d")
        power *= 10
    page.line(left, 270, left + 280, 270, GREY)
    for place, count in enumerate(COUNTS):
        page.text(left + 30 + place * 110, 286, f"{int(count):,}", 11, "middle", "#52606d")
    page.text(left + 140, 301, "connections", 10, "middle", "#52606d")


def legend(page, y):
    x = 62
    for _, label, colour in SERVERS:
        page.line(x, y, x + 22, y, colour, 2.4)
        page.text(x + 28, y + 4, label, 12)
        x += 50 + len(label) * 7.4


def source(page, figures, y, scale=" Logarithmic scale."):
    machine = figures["machine"]
    page.text(16, y - 18, f"{machine['cpu']}, {machine['cores']} cores, {machine['kernel']}, {machine['date']}, "
              f"other work on the machine (load {machine['load_average']});", 9.5, fill=GREY)
    page.text(16, y - 5, f"best of {figures['load']['rounds']} runs of {figures['load']['seconds']} s by "
              f"`{machine['command']}`.{scale}", 9.5, fill=GREY)


def memory(figures):
    page = Page(760, 246, "Resident memory of the server with 10,000 connections")
    rows = [(label, colour, figures["road"][name]["10000"]["of1"]) for name, label, colour in SERVERS]
    largest = max(row["memory_kb"] for _, _, row in rows)
    page.text(16, 28, "resident memory with 10,000 connections", 13, bold=True)
    for at, (label, colour, row) in enumerate(rows):
        y = 44 + at * 32
        page.text(130, y + 15, label, 12, "end")
        width = max(440 * row["memory_kb"] / largest, 1)
        page.box(140, y, width, 22, colour, colour, 1)
        threads = "1 thread" if row["threads"] == 1 else f"{row['threads']:,} threads"
        page.text(146 + width, y + 15, f"{row['memory_kb'] / 1024:,.1f} MB, {threads}", 11)
    source(page, figures, 240, "")
    return page.render()
