"""The drawings that show an idea, not a figure."""

from .svg import BLUE, GREEN, GREY, INK, ORANGE, PALE, RED, VIOLET, YELLOW, Page

SOFT = "#52606d"


def all():
    return {"sockets": sockets(), "level-edge": level_edge(), "lost-edge": lost_edge(), "ready-bit": ready_bit(),
            "turn": turn(), "budget": budget(), "timeout": timeout(), "wake-up": wake_up(),
            "before-sleep": before_sleep(), "fork": fork(), "one-thread": one_thread()}


def sockets():
    page = Page(760, 318, "A socket: two buffers in the kernel, and the two conditions that a poll reports")
    page.label_box(16, 96, 112, 110, ["the peer", "(a client)"], GREY)
    page.box(214, 34, 236, 236, "#fafbfc", GREY, dash="5 4")
    page.text(332, 54, "kernel: one socket", 13, "middle", bold=True)
    page.label_box(234, 76, 196, 62, ["receive buffer", "bytes that arrived"], BLUE)
    page.label_box(234, 176, 196, 62, ["send buffer", "bytes not yet acknowledged"], ORANGE)
    page.label_box(556, 96, 188, 110, ["the program", "its own buffers"], GREEN)
    page.arrow(128, 112, 234, 106)
    page.arrow(234, 206, 128, 192)
    page.text(168, 96, "network", 11, "middle", SOFT)
    page.arrow(430, 106, 556, 118)
    page.text(494, 100, "read", 13, "middle", mono=True)
    page.arrow(556, 190, 430, 206)
    page.text(494, 222, "write", 13, "middle", mono=True)
    page.text(234, 154, "readable: not empty, or closed", 11, fill=BLUE)
    page.text(234, 258, "writable: enough space is free", 11, fill=ORANGE)
    page.lines(16, 292, ["read on an empty buffer and write on a full one wait; on a nonblocking socket "
                         "they fail with EAGAIN instead."], 11.5, fill=SOFT)
    return page.render()


def level_edge():
    """The bytes in a receive buffer over time, and what the two kinds of poll report."""
    page = Page(760, 420, "Level and edge: the bytes in a receive buffer over time, and the reports")
    left, base, top = 96, 190, 50
    page.text(16, 30, "bytes in the receive buffer", 13, bold=True)
    page.line(left, base, 740, base, GREY)
    page.arrow(728, base, 744, base, GREY)
    page.text(744, base + 16, "time", 11, "end", SOFT)
    # (x, KB) steps: arrivals and reads.
    steps = [(left, 0), (150, 0), (150, 32), (220, 32), (220, 16), (300, 16), (300, 48), (370, 48), (370, 32),
             (450, 32), (450, 16), (530, 16), (530, 0), (640, 0), (640, 16), (700, 16), (700, 0), (735, 0)]
    scale = (base - top - 20) / 48
    page.path([(x, base - kb * scale) for x, kb in steps], BLUE, 2.4)
    for kb in (16, 32, 48):
        page.text(left - 8, base - kb * scale + 4, f"{kb} KB", 10, "end", SOFT)
        page.line(left, base - kb * scale, 735, base - kb * scale, PALE, 0.8)
    for x, label in ((150, "32 KB arrive"), (300, "32 KB arrive"), (640, "16 KB arrive")):
        page.line(x, 40, x, 374, GREY, 0.7, "3 4")
        page.text(x + 5, 46, label, 11, fill=BLUE)
    for x in (220, 370, 450, 530, 700):
        page.text(x, base + 16, "read", 10.5, "middle", mono=True)
    page.text(16, 244, "level: reported by every poll while the buffer is not empty", 13, bold=True)
    for begin, end in ((150, 530), (640, 700)):
        page.box(begin, 256, end - begin, 20, "#dbe8f7", BLUE, 2)
    for x in (155, 225, 305, 375, 455, 645):
        page.dot(x, 266, 4, BLUE)
    page.text(16, 270, "poll returns", 11, fill=SOFT)
    page.text(16, 322, "edge: reported once for each arrival, read or not", 13, bold=True)
    for x in (150, 300, 640):
        page.arrow(x, 368, x, 338, ORANGE, 2.4)
    page.text(16, 358, "poll returns", 11, fill=SOFT)
    page.lines(16, 390, ["With edges, the poll after a read of 16 KB sleeps, although bytes are left. The program must "
                         "know that itself:", "either it reads until EAGAIN, or it remembers that it has not."],
               11.5, fill=SOFT)
    return page.render()


def lost_edge():
    page = Page(760, 250, "Lesson 5: an edge is lost, and both sides wait for ever")
    rows = {"client": 50, "kernel": 120, "server": 190}
    for name, y in rows.items():
        page.text(16, y + 4, name, 13, bold=True)
        page.line(84, y, 740, y, PALE, 2)
    page.label_box(96, 36, 112, 28, "writes 64 KB", BLUE, 11)
    page.arrow(152, 64, 176, 106)
    page.label_box(150, 106, 116, 28, "64 KB, one edge", ORANGE, 11)
    page.arrow(222, 134, 246, 176)
    page.label_box(216, 176, 112, 28, ["reads 16 KB"], GREEN, 11)
    page.arrow(300, 176, 318, 64)
    page.text(325, 84, "16 KB back", 10.5, fill=SOFT)
    page.label_box(310, 106, 170, 28, "48 KB left, no new edge", RED, 11)
    page.label_box(346, 176, 394, 28, "epoll_wait sleeps: nothing has changed", GREY, 11)
    page.label_box(346, 36, 394, 28, "read waits for the other 48 KB", GREY, 11)
    page.text(16, 238, "Nothing is wrong in the kernel: it reported the change. The server did not act on all of it.",
              11.5, fill=SOFT)
    return page.render()


def ready_bit():
    page = Page(760, 380, "The ready bit of one fd and direction over time")
    left = 118
    page.text(16, 34, "edges", 13, bold=True)
    page.text(16, 104, "handler", 13, bold=True)
    page.text(16, 186, "ready bit", 13, bold=True)
    for x, label in ((140, "bytes"), (420, "bytes"), (600, "bytes + end")):
        page.arrow(x, 48, x, 22, ORANGE, 2.4)
        page.text(x + 8, 34, label, 11, fill=ORANGE)
    calls = [(172, 52, "More", "1 budget used up"), (252, 52, "More", ""), (332, 60, "Drained", "2 EAGAIN"),
             (460, 60, "Drained", "3 short read"), (634, 44, "Drained", ""), (694, 50, "Drained", "4 again: end")]
    for x, width, result, note in calls:
        page.label_box(x, 84, width, 34, result, GREEN, 10)
        if note:
            page.text(x, 76, note, 10, fill=SOFT)
    bit = [(left, 0), (140, 0), (140, 1), (172, 1), (172, 0), (224, 0), (224, 1), (252, 1), (252, 0), (304, 0),
           (304, 1), (332, 1), (332, 0), (420, 0), (420, 1), (460, 1), (460, 0), (600, 0), (600, 1), (634, 1),
           (634, 0), (678, 0), (678, 1), (694, 1), (694, 0), (748, 0)]
    page.path([(x, 200 - value * 36) for x, value in bit], BLUE, 2.2)
    page.text(left - 8, 204, "0", 10, "end", SOFT)
    page.text(left - 8, 168, "1", 10, "end", SOFT)
    page.line(left, 210, 748, 210, GREY)
    page.text(748, 226, "time", 11, "end", SOFT)
    page.lines(16, 254, [
        "The bit is cleared before the handler is called, so an edge that a nested turn sees meanwhile is kept.",
        "1  More: the handler stopped early. The bit is set again, and the next turn calls the handler without a poll "
        "that waits.",
        "2  Drained: the bit stays 0 until the kernel reports the next edge.",
        "3  A short read may return Drained at once: all bytes of the edge have been read.",
        "4  An edge with a hang-up: the bytes and the end are one edge, and the read was short. The first Drained is",
        "    ignored; the second call reads the end of file."], 11.5, 20, fill=INK)
    return page.render()


def turn():
    page = Page(760, 420, "One turn of the loop: process_events, box by box")
    boxes = [("1  before_sleep", "work before the poll: flush files, send replies", GREEN),
             ("2  poll_timeout", "an fd is due: 0. A timer: until then. Neither: for ever", GREY),
             ("3  poll", "the only place where the thread sleeps; edges set ready bits", BLUE),
             ("4  after_sleep", "time has passed: read the clock", GREEN),
             ("5  serve Class::First", "due fds of this class, oldest first", ORANGE),
             ("6  serve Class::Normal", "the same for all other fds", ORANGE),
             ("7  fire_timers", "due timers, earliest first", YELLOW)]
    for at, (name, note, colour) in enumerate(boxes):
        y = 20 + at * 55
        page.label_box(80, y, 224, 36, name, colour, 13, mono=True)
        page.text(322, y + 22, note, 12, fill=SOFT)
        if at + 1 < len(boxes):
            page.arrow(192, y + 36, 192, y + 55)
    page.path([(192, 386), (192, 404), (40, 404), (40, 38), (72, 38)], INK, 1.4)
    page.arrow(70, 38, 80, 38)
    return page.render()


def budget():
    page = Page(760, 330, "A turn with and without a budget, and with a class that is served first")

    def row(y, title, blocks, waits):
        page.text(16, y - 8, title, 13, bold=True)
        x = 20
        for label, width, colour in blocks:
            page.label_box(x, y, width, 34, label, colour, 11)
            x += width + 2
        begin, end, label = waits
        page.line(begin, y + 46, end, y + 46, RED, 1.6)
        page.line(begin, y + 41, begin, y + 51, RED, 1.6)
        page.line(end, y + 41, end, y + 51, RED, 1.6)
        page.text(end + 6, y + 50, label, 11, fill=RED)
    row(44, "without a budget: a busy client (B) is read to its end", [("poll", 40, GREY), ("B: 2 MB", 520, ORANGE),
                                                                        ("c", 30, BLUE)], (62, 586, "c waits"))
    row(148, "with a budget: More, and the others are served", [
        ("poll", 40, GREY), ("B", 90, ORANGE), ("c", 30, BLUE), ("poll", 40, GREY), ("B", 90, ORANGE),
        ("poll", 40, GREY), ("B", 90, ORANGE), ("poll", 40, GREY), ("B", 90, ORANGE)], (62, 156, "c waits"))
    row(252, "Class::First: a link between servers (L) is served before all others", [
        ("poll", 40, GREY), ("L", 30, VIOLET), ("B", 90, ORANGE), ("c", 30, BLUE), ("poll", 40, GREY),
        ("L", 30, VIOLET), ("B", 90, ORANGE), ("poll", 40, GREY), ("B", 90, ORANGE), ("poll", 40, GREY),
        ("B", 90, ORANGE)], (62, 94, "L waits"))
    return page.render()


def timeout():
    page = Page(760, 292, "The time-out: rounded up to a whole millisecond, so a timer is late and never early")
    left, unit, y = 60, 92, 120
    page.text(16, 28, "the next timer is due in 2.3 ms; no fd is due", 13, bold=True)
    for ms in range(7):
        x = left + ms * unit
        page.line(x, y - 6, x, y + 6, GREY)
        page.text(x, y + 24, f"{ms} ms", 11, "middle", SOFT)
    page.line(left, y, left + 6.6 * unit, y, GREY)
    page.arrow(left, 62, left, 110, BLUE, 2)
    page.text(left + 8, 66, "the loop asks: until_next() = 2.3 ms", 12, fill=BLUE)
    due, end = left + 2.3 * unit, left + 3 * unit
    page.arrow(due, 88, due, 116, ORANGE, 2)
    page.text(due - 6, 98, "due", 12, "end", ORANGE)
    page.arrow(end, 88, end, 116, GREEN, 2)
    page.text(end + 8, 98, "epoll_wait(3 ms) returns, the timer fires", 12, fill=GREEN)
    page.box(due, y - 3, end - due, 6, RED, RED, 1)
    page.text((due + end) / 2, y + 42, "0.7 ms late", 11.5, "middle", RED)
    page.text(16, 196, "rounded down instead", 13, bold=True)
    y = 236
    page.line(left, y, left + 6.6 * unit, y, GREY)
    for ms in range(7):
        page.line(left + ms * unit, y - 6, left + ms * unit, y + 6, GREY)
    page.box(left, y - 9, 2 * unit, 18, "#dbe8f7", BLUE, 2)
    page.text(left + unit, y + 4, "epoll_wait(2 ms)", 11, "middle")
    for at in range(9):
        page.line(left + (2 + at * 0.033) * unit, y - 9, left + (2 + at * 0.033) * unit, y + 9, RED, 1.2)
    page.text(left + 2.4 * unit, y - 14, "epoll_wait(0), again and again, for 0.3 ms", 11.5, fill=RED)
    page.text(left, y + 34, "No timer is late, and the thread spins for a fraction of a millisecond before each one.",
              11.5, fill=SOFT)
    return page.render()


def wake_up():
    page = Page(760, 372, "A wake-up that is lost, and one that is not")

    def lanes(y, title):
        page.text(16, y, title, 13, bold=True)
        for at, name in enumerate(("loop", "worker")):
            page.text(16, y + 38 + at * 54, name, 12)
            page.line(80, y + 34 + at * 54, 740, y + 34 + at * 54, PALE, 2)
    lanes(28, "a flag alone: the result arrives between the check and the sleep")
    page.label_box(90, 48, 150, 28, "any results? no", GREEN, 11)
    page.label_box(262, 102, 150, 28, "puts its result", VIOLET, 11)
    page.label_box(434, 48, 306, 28, "poll sleeps, with a result in the queue", RED, 11)
    lanes(176, "eventfd: the wake is a state of the kernel, and the poll looks at it")
    page.label_box(90, 196, 150, 28, "any results? no", GREEN, 11)
    page.label_box(262, 250, 150, 28, "puts its result", VIOLET, 11)
    page.label_box(418, 250, 110, 28, "writes 1", VIOLET, 11)
    page.arrow(474, 250, 496, 226, VIOLET)
    page.label_box(440, 196, 132, 28, "poll returns", BLUE, 11)
    page.label_box(580, 196, 160, 28, "takes the result", GREEN, 11)
    page.lines(16, 318, ["The result is put first, then the eventfd is written. If the write comes before the poll, the "
                         "poll does not sleep;", "if it comes during the poll, the poll ends. Several writes before "
                         "one poll end it once."], 11.5, fill=SOFT)
    return page.render()


def before_sleep():
    page = Page(760, 300, "What happens to a write between the read and the reply")
    steps = [("read", BLUE), ("commands", ORANGE), ("blocked clients", ORANGE), ("AOF", RED), ("replicas", VIOLET),
             ("replies", GREEN), ("poll", GREY)]
    x = 16
    for at, (name, colour) in enumerate(steps):
        width = 22 + len(name) * 7.4
        page.label_box(x, 60, width, 40, name, colour, 12)
        if at + 1 < len(steps):
            page.arrow(x + width, 80, x + width + 17, 80)
        x += width + 17
    page.text(16, 34, "handlers of this turn", 12, fill=SOFT)
    page.text(190, 34, "before_sleep of the next turn, before the loop may wait", 12, fill=SOFT)
    page.line(184, 22, 184, 116, GREY, 1, "4 4")
    rows = ["A blocked client that is served runs its command now: its change must be in the same AOF write.",
            "A reply says that a change is accepted. It leaves after the change is in the AOF, never before.",
            "A replica gets the change after the AOF: after a crash it must not know more than its primary.",
            "The buffer of replies is full of all replies of the turn: one write for each client, not one for each "
            "command.",
            "Whatever makes work for another step comes before it. Nothing may be left that only the next event would "
            "start:", "the poll may sleep for ever."]
    for at, row in enumerate(rows):
        if at < 5:
            page.dot(22, 142 + at * 30, 3, GREEN)
        page.text(34, 146 + at * 30 - (9 if at == 5 else 0), row, 12)
    return page.render()


def fork():
    page = Page(760, 396, "fork: shared pages, and a copy when one of the two writes")

    def processes(y):
        page.label_box(16, y, 100, 34, "parent", BLUE)
        page.label_box(16, y + 92, 100, 34, "child", VIOLET)
        for at, name in enumerate("ABCDE"):
            page.label_box(330 + at * 62, y + 43, 54, 40, name, GREY, 12)
            page.line(116, y + 112, 330 + at * 62 + 27, y + 83, VIOLET, 0.9)
    page.text(16, 26, "after fork: two page tables, one set of pages, all read-only", 13, bold=True)
    processes(40)
    for at in range(5):
        page.line(116, 54, 330 + at * 62 + 27, 83, BLUE, 0.9)
    page.text(654, 107, "5 pages", 12, fill=SOFT)
    page.text(16, 206, "the parent writes to C: the kernel copies that page of 4 KB", 13,
              bold=True)
    processes(232)
    page.label_box(454, 222, 54, 36, "C'", ORANGE, 12, bold=True)
    page.text(516, 244, "the copy", 12, fill=SOFT)
    page.line(116, 240, 454, 240, BLUE, 1.2)
    for at in (0, 1, 3, 4):
        page.line(116, 246, 330 + at * 62 + 27, 275, BLUE, 0.9)
    page.text(654, 299, "6 pages", 12, fill=SOFT)
    page.text(16, 386, "The child sees the data of the moment of the fork, until it ends. The parent pays one page fault "
              "for each page that it writes.", 11.5, fill=SOFT)
    return page.render()


def one_thread():
    page = Page(760, 400, "Four ways to use cores")
    cells = [(16, 24, "one loop"), (392, 24, "one loop, threads for I/O"),
             (16, 214, "shards: a loop and its data for each core"), (392, 214, "threads that share data")]
    for x, y, title in cells:
        page.box(x, y, 352, 174, "#fafbfc", "#d5dae0")
        page.text(x + 12, y + 22, title, 13, bold=True)
    page.label_box(40, 74, 130, 64, ["loop", "parse, run, reply"], GREEN, 12)
    page.label_box(222, 74, 120, 64, "all data", ORANGE)
    page.arrow(170, 106, 222, 106)
    page.text(28, 172, "no lock; one core at most", 12, fill=SOFT)
    for at in range(3):
        page.label_box(410, 60 + at * 38, 104, 30, "read, parse", BLUE, 11)
        page.arrow(514, 75 + at * 38, 548, 110)
    page.label_box(548, 88, 72, 44, ["loop", "runs"], GREEN, 12)
    page.label_box(650, 88, 80, 44, "all data", ORANGE, 12)
    page.arrow(620, 110, 650, 110)
    page.text(404, 184, "no lock on data; handing over costs", 12, fill=SOFT)
    for at in range(3):
        page.label_box(34, 248 + at * 34, 110, 28, "loop", GREEN, 12)
        page.label_box(206, 248 + at * 34, 110, 28, f"data {at + 1}", ORANGE, 12)
        page.arrow(144, 262 + at * 34, 206, 262 + at * 34)
    page.text(28, 376, "no lock; a request for two shards needs messages", 12, fill=SOFT)
    for at in range(3):
        page.label_box(410, 248 + at * 34, 110, 28, "thread", GREEN, 12)
        page.arrow(520, 262 + at * 34, 590, 294)
    page.label_box(590, 270, 52, 50, "locks", RED, 12)
    page.label_box(662, 270, 72, 50, "all data", ORANGE, 12)
    page.arrow(642, 295, 662, 295)
    page.text(404, 376, "each access pays; order is not defined", 12, fill=SOFT)
    return page.render()
