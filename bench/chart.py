# SPDX-License-Identifier: Apache-2.0
"""Bar charts as inline SVG. Colours come from the page's style sheet by class, so that they fit light and dark."""
import html
import math

WIDTH, LABEL, RIGHT = 640, 132, 104     # of the whole, of the names at the left, of the text behind the longest bar
ROW, BAR, TOP, BOTTOM = 26, 16, 8, 44


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

    def svg(self):
        inside = tag("title", html.escape(self.title)) + "".join(self.out + self.texts)
        return tag("svg", inside, viewBox="0 0 %d %d" % (WIDTH, self.height), role="img",
                   xmlns="http://www.w3.org/2000/svg")


def bars(title, axis, rows, mark=None):
    """One bar a row with its range: rows of {"label", "value", "low", "high", "text", "own"}; a value of None is told
    by its text alone. mark: (value, what it is)."""
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
    return plot.svg()


def stacks(title, axis, rows, show):
    """Bars of parts: rows of {"label", "parts": [(name, value, class)], "text", "own"}; show(value) for the tips."""
    plot = Plot(title, axis, max(sum(v for _, v, _ in r["parts"]) for r in rows), len(rows))
    for i, row in enumerate(rows):
        at = 0.0
        plot.label(i, row["label"], row["own"])
        for name, value, kind in row["parts"]:
            plot.bar(i, at, at + value, kind, "%s: %s" % (name, show(value)))
            at += value
        plot.text(i, at, row["text"])
    return plot.svg()
