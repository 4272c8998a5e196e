"""A page of SVG: boxes, lines, arrows, texts. Coordinates are printed with at most one decimal, so that
the same calls give the same bytes everywhere."""

from html import escape

INK, GREY, PALE, PAPER = "#1f2933", "#7b8794", "#e4e7eb", "#ffffff"
BLUE, ORANGE, GREEN, RED, VIOLET, YELLOW = "#2f6fb7", "#d9822b", "#2f8f5b", "#c23b3b", "#7a5ab5", "#e9b949"
LIGHT = {BLUE: "#dbe8f7", ORANGE: "#fbe6d0", GREEN: "#d9f0e3", RED: "#f8dcdc", VIOLET: "#e7dff4",
         YELLOW: "#fdf3d7", GREY: "#eef0f2"}


def number(value):
    return f"{value:.1f}".rstrip("0").rstrip(".")


class Page:
    def __init__(self, width, height, title):
        self.width, self.height, self.title = width, height, title
        self.parts = []

    def add(self, name, content=None, **attributes):
        pairs = []
        for key, value in attributes.items():
            if value is not None:
                shown = number(value) if isinstance(value, (int, float)) else escape(value)
                pairs.append(f' {key.rstrip("_").replace("_", "-")}="{shown}"')
        end = "/>" if content is None else f">{escape(content, quote=False)}</{name}>"
        self.parts.append(f"<{name}{''.join(pairs)}{end}")

    def box(self, x, y, w, h, fill=PAPER, stroke=INK, r=4, width=1.2, dash=None):
        self.add("rect", x=x, y=y, width=w, height=h, rx=r, fill=fill, stroke=stroke, stroke_width=width,
                 stroke_dasharray=dash)

    def text(self, x, y, content, size=13, anchor="start", fill=INK, bold=False, mono=False, italic=False):
        self.add("text", content, x=x, y=y, font_size=size, text_anchor=anchor, fill=fill,
                 font_weight="bold" if bold else None, font_style="italic" if italic else None,
                 font_family="monospace" if mono else None)

    def lines(self, x, y, contents, size=13, step=17, **options):
        for at, content in enumerate(contents):
            self.text(x, y + at * step, content, size, **options)

    def label_box(self, x, y, w, h, contents, colour=GREY, size=13, mono=False, bold=False):
        """A coloured box with its lines in the middle."""
        self.box(x, y, w, h, LIGHT[colour], colour)
        contents = [contents] if isinstance(contents, str) else contents
        top = y + h / 2 - (len(contents) - 1) * size * 0.62 + size * 0.36
        for at, content in enumerate(contents):
            self.text(x + w / 2, top + at * size * 1.24, content, size, "middle", mono=mono,
                      bold=bold and at == 0)

    def line(self, x1, y1, x2, y2, stroke=INK, width=1.2, dash=None):
        self.add("line", x1=x1, y1=y1, x2=x2, y2=y2, stroke=stroke, stroke_width=width, stroke_dasharray=dash)

    def path(self, points, stroke=INK, width=1.6, fill="none", dash=None):
        d = "M" + " L".join(f"{number(x)},{number(y)}" for x, y in points)
        self.add("path", d=d, stroke=stroke, stroke_width=width, fill=fill, stroke_dasharray=dash)

    def arrow(self, x1, y1, x2, y2, stroke=INK, width=1.4, dash=None):
        """A straight arrow; its head is a triangle of its own, as not all viewers know markers."""
        length = max(((x2 - x1) ** 2 + (y2 - y1) ** 2) ** 0.5, 0.1)
        ux, uy = (x2 - x1) / length, (y2 - y1) / length
        bx, by = x2 - ux * 8, y2 - uy * 8
        self.line(x1, y1, bx, by, stroke, width, dash)
        d = (f"M{number(x2)},{number(y2)} L{number(bx - uy * 4)},{number(by + ux * 4)} "
             f"L{number(bx + uy * 4)},{number(by - ux * 4)} Z")
        self.add("path", d=d, fill=stroke)

    def dot(self, x, y, r=3.5, fill=INK, stroke=None):
        self.add("circle", cx=x, cy=y, r=r, fill=fill, stroke=stroke)

    def render(self):
        head = (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" '
                f'width="{self.width}" height="{self.height}" font-family="DejaVu Sans, Verdana, sans-serif" '
                f'role="img">\n<title>{escape(self.title)}</title>\n'
                f'<rect width="{self.width}" height="{self.height}" fill="{PAPER}"/>\n')
        return head + "\n".join(self.parts) + "\n</svg>\n"
