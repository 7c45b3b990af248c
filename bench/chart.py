# SPDX-License-Identifier: Apache-2.0
"""Bar charts as SVG: inline, with their colours from the page's style sheet, or alone, with a style of their own.
Colours go by class, so that they fit light and dark."""
import html
import math
import re

WIDTH, LABEL, RIGHT = 640, 132, 116     # of the whole, of the names at the left, of the text behind the longest bar
ROW, BAR, TOP, BOTTOM = 26, 16, 8, 44
KEY_ROW, KEY_CHAR = 20, 7.2             # of the key below a chart that stands alone: height, and width of a character

LIGHT = {"paper": "#fff", "ink": "#1c2330", "soft": "#5b6576", "rule": "#dde2ea", "card": "#f6f8fb", "own": "#1f6feb",
         "bar": "#a9b4c4", "good": "#1a7f37", "bad": "#c4320a", "mark": "#c4320a", "p0": "#8ecae6", "p1": "#219ebc",
         "p2": "#7b5ea7", "p3": "#b79ced", "p4": "#fb8500", "p5": "#126782", "p6": "#2a9d5c", "p7": "#95d5a5"}
DARK = {"paper": "#12161d", "ink": "#e4e9f1", "soft": "#9aa6b8", "rule": "#2c3442", "card": "#1a202a", "own": "#58a6ff",
        "bar": "#56627a", "good": "#4cc26a", "bad": "#ff8a65", "mark": "#ff8a65", "p1": "#37aecb", "p2": "#9b7fd0",
        "p5": "#3d8fae"}
STYLE = """
svg text { font: 13px system-ui, "Segoe UI", "DejaVu Sans", sans-serif; fill: var(--ink); }
svg .tick, svg .axis, svg .note { fill: var(--soft); font-size: 12px; } svg .own { font-weight: 600; }
svg .none { fill: var(--bad); } svg .value { paint-order: stroke; stroke: var(--card); stroke-width: 4px; }
svg .grid { stroke: var(--rule); } svg .whisker { stroke: var(--ink); stroke-width: 1.4; fill: none; }
svg .mark { stroke: var(--mark); stroke-width: 2; stroke-dasharray: 5 4; }
svg .bar, .key .bar { fill: var(--bar); background: var(--bar); } svg .bar.own { fill: var(--own); }
.o { fill: var(--own); background: var(--own); } .l { fill: var(--bar); background: var(--bar); }
""" + "".join(".p%d { fill: var(--p%d); background: var(--p%d); }\n" % (n, n, n) for n in range(8))

# Colours of the parts of the bound; gzip and zstd are the same stage.
PARTS = {"receive": "p0", "sha256 of the blob": "p1", "hmac": "p2", "ctr": "p3", "inflate": "p4", "zstd": "p4",
         "sha256 of the tar": "p5", "create": "p6", "write": "p7"}


def variables(colours):
    return " ".join("--%s: %s;" % item for item in colours.items())


def alone_style():
    """With the colours themselves: not every viewer of pictures knows variables."""
    def told(colours):
        return re.sub(r"var\(--(\w+)\)", lambda m: colours[m[1]], STYLE + ".card { fill: var(--card); }")
    return "<style>%s@media (prefers-color-scheme: dark) {%s}\n</style>" % (told(LIGHT), told({**LIGHT, **DARK}))


def step(top, most=6):
    """The distance of ticks: 1, 2 or 5 times a power of ten, so that at most so many fit."""
    raw = top / most
    power = 10 ** math.floor(math.log10(raw))
    return next(power * n for n in (1, 2, 5, 10) if power * n >= raw * 0.9999)


def tag(name, text=None, **attributes):
    inside = "".join(' %s="%s"' % (k.rstrip("_").replace("_", "-"), html.escape(
        "%.1f" % v if isinstance(v, float) else str(v))) for k, v in attributes.items())
    return "<%s%s/>" % (name, inside) if text is None else "<%s%s>%s</%s>" % (name, inside, text, name)


class Plot:
    """A frame with a titled axis at the bottom and one row a bar."""

    def __init__(self, title, axis, top, count):
        self.top, self.count, self.title = top or 1.0, count, title
        self.height = TOP + ROW * count + BOTTOM
        self.out, self.texts = [self.axis(axis)], []    # texts lie above all else
        self.head = ""

    def x(self, value):
        return LABEL + (WIDTH - LABEL - RIGHT) * value / self.top

    def y(self, row):
        return float(TOP + ROW * row)

    def axis(self, text):
        base, out, gap = self.y(self.count) + 2, [], step(self.top)
        for n in range(int(self.top / gap + 1e-9) + 1):
            x = self.x(n * gap)
            out.append(tag("line", x1=x, x2=x, y1=TOP, y2=base, class_="grid"))
            out.append(tag("text", "%g" % (n * gap), x=x, y=base + 15, class_="tick", text_anchor="middle"))
        out.append(tag("text", html.escape(text), x=(LABEL + WIDTH - RIGHT) / 2, y=base + 34, class_="axis",
                       text_anchor="middle"))
        return "".join(out)

    def label(self, row, text, strong=False):
        self.out.append(tag("text", html.escape(text), x=LABEL - 8, y=self.y(row) + 17, text_anchor="end",
                            class_="label own" if strong else "label"))

    def bar(self, row, start, end, kind, tip=""):
        shape = tag("rect", tag("title", html.escape(tip)) if tip else "", x=self.x(start), y=self.y(row) + 5,
                    width=max(0.0, self.x(end) - self.x(start)), height=BAR, class_=kind)
        self.out.append(shape)

    def whisker(self, row, low, high):
        y = self.y(row) + 5 + BAR / 2
        self.out.append(tag("path", d="M%.1f %.1fH%.1fM%.1f %.1fv8M%.1f %.1fv8" % (
            self.x(low), y, self.x(high), self.x(low), y - 4, self.x(high), y - 4), class_="whisker"))

    def text(self, row, value, text, kind="value"):
        self.texts.append(tag("text", html.escape(text), x=self.x(value) + 7, y=self.y(row) + 17, class_=kind))

    def mark(self, value, tip):
        """A line across all bars."""
        self.out.append(tag("line", tag("title", html.escape(tip)), x1=self.x(value), x2=self.x(value), y1=TOP,
                            y2=self.y(self.count), class_="mark"))

    def stand_alone(self, key):
        """Gives it a style, a ground, and the key: [(text, class)]."""
        x, y = 12.0, float(self.height + 4)
        for text, kind in key:
            width = 30 + KEY_CHAR * len(text)
            if x + width > WIDTH:
                x, y = 12.0, y + KEY_ROW
            self.out.append(tag("rect", x=x, y=y, width=11, height=11, class_=kind))
            self.texts.append(tag("text", html.escape(text), x=x + 16, y=y + 10, class_="note"))
            x += width
        self.height = int(y) + KEY_ROW if key else self.height
        self.head = alone_style() + tag("rect", width=WIDTH, height=self.height, rx=8, class_="card")

    def svg(self):
        inside = tag("title", html.escape(self.title)) + self.head + "".join(self.out + self.texts)
        return tag("svg", inside, viewBox="0 0 %d %d" % (WIDTH, self.height), role="img",
                   xmlns="http://www.w3.org/2000/svg")


def bars(title, axis, rows, mark=None, alone=False):
    """One bar a row with its range: rows of {"label", "value", "low", "high", "text", "own"}; a value of None is told
    by its text alone. mark: (value, what it is). alone: as a picture of its own."""
    plot = Plot(title, axis, max([r["high"] for r in rows if r["value"] is not None] + [mark[0] if mark else 0]),
                len(rows))
    for i, row in enumerate(rows):
        plot.label(i, row["label"], row["own"])
        if row["value"] is None:
            plot.text(i, 0, row["text"], "value none")
            continue
        plot.bar(i, 0, row["value"], "bar own" if row["own"] else "bar")
        if row["high"] > row["low"]:
            plot.whisker(i, row["low"], row["high"])
        plot.text(i, row["high"], row["text"])
    if mark:
        plot.mark(*mark)
    if alone:
        plot.stand_alone([])
    return plot.svg()


def stacks(title, axis, rows, show, key=None):
    """Bars of parts: rows of {"label", "parts": [(name, value, class)], "text", "own"}; show(value) for the tips. With
    a key, [(text, class)], as a picture of its own."""
    plot = Plot(title, axis, max(sum(v for _, v, _ in r["parts"]) for r in rows), len(rows))
    for i, row in enumerate(rows):
        at = 0.0
        plot.label(i, row["label"], row["own"])
        for name, value, kind in row["parts"]:
            plot.bar(i, at, at + value, kind, "%s: %s" % (name, show(value)))
            at += value
        plot.text(i, at, row["text"])
    if key:
        plot.stand_alone(key)
    return plot.svg()
