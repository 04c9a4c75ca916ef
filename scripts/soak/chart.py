"""The samples as one picture: panels above each other over the same time, and above them what happened, a row for each
kind. Plain SVG, legible without colours to whoever reads the names."""

import math
from dataclasses import dataclass
from xml.sax.saxutils import escape

MIB = 1 << 20
WIDTH, LEFT, RIGHT = 1120, 190, 24
PANEL, GAP, ROW = 112, 22, 17
INK, FAINT, GRID = "#1f2933", "#667380", "#e3e7eb"
BLUE, ORANGE, GREEN = "#1f5fa8", "#c2570c", "#2e7d4f"
# Colour of each kind, and whether it is drawn through the panels too.
KINDS = {
    "mosquitto killed": ("#8e44ad", True),
    "mosquitto stopped": ("#b98bd0", True),
    "Kafka killed": ("#c0392b", True),
    "Kafka stopped": ("#e08e79", True),
    "configuration changed": ("#d4a017", True),
    "certificate renewed": ("#2471a3", True),
    "vehicles killed": ("#566573", True),
    "ZMQ consumer slow": ("#7dbb91", False),
    "ZMQ consumer stopped": ("#2e7d4f", False),
}


@dataclass(frozen=True)
class Panel:
    """`series`: column, name, colour."""

    title: str
    unit: str
    series: tuple
    scale: float = 1
    logarithmic: bool = False


PANELS = (
    Panel("RSS", "MiB", (("rss", "resident", BLUE),), MIB),
    Panel("Open", "count", (("descriptors", "descriptors", BLUE), ("threads", "threads", ORANGE))),
    Panel("Disk", "MiB in use by the queue", (("disk", "blocks in use", BLUE),), MIB),
    Panel("Backlog", "records", (("backlog_kafka", "Kafka", BLUE), ("backlog_mqtt", "mosquitto", ORANGE))),
    Panel(
        "Rate",
        "records/s",
        (("kafka", "to Kafka", BLUE), ("mqtt", "to mosquitto", ORANGE), ("acks", "acknowledged", GREEN)),
    ),
    Panel("Ack latency", "ms, log scale", (("ack_p99", "p99", ORANGE), ("ack_p50", "p50", BLUE)), logarithmic=True),
)


def nice_step(span: float, at_most: int) -> float:
    """1, 2 or 5 times a power of ten, so that there are at most so many steps."""
    raw = span / at_most
    power = 10 ** math.floor(math.log10(raw))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)


def time_step(seconds: float) -> float:
    """Seconds from one mark to the next."""
    steps = (10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400)
    return next((step for step in steps if seconds / step <= 12), steps[-1])


class Scale:
    """Values of one panel to heights in it, and the marks of its axis."""

    def __init__(self, values: list[float], logarithmic: bool, whole: bool):
        self.logarithmic = logarithmic
        if logarithmic:
            # Whole decades.
            self.low = math.floor(math.log10(max(min(values), 0.1)))
            self.high = max(math.ceil(math.log10(max(values))), self.low + 1)
            self.marks = [10.0**power for power in range(self.low, self.high + 1)]
            return
        step = nice_step(max(max(values), 1) * 1.02, 4)
        step = max(step, 1) if whole else step
        self.low, self.high = 0, math.ceil(max(max(values), 1) * 1.02 / step) * step
        self.marks = [number * step for number in range(round(self.high / step) + 1)]

    def part(self, value: float) -> float:
        value = math.log10(max(value, 10**self.low)) if self.logarithmic else value
        return (value - self.low) / (self.high - self.low)


class Canvas:
    """The picture as it grows."""

    def __init__(self):
        self.parts: list[str] = []

    def line(self, x1, y1, x2, y2, stroke, width=1.0, dash=""):
        dashed = f' stroke-dasharray="{dash}"' if dash else ""
        self.parts.append(
            f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{stroke}" '
            f'stroke-width="{width}"{dashed}/>'
        )

    def box(self, x, y, width, height, fill, opacity=1.0):
        self.parts.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{fill}" '
            f'fill-opacity="{opacity}"/>'
        )

    def text(self, x, y, words, size=11, fill=INK, anchor="start", weight="normal"):
        self.parts.append(
            f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{fill}" text-anchor="{anchor}" '
            f'font-weight="{weight}">{escape(words)}</text>'
        )

    def path(self, points, stroke, width=1.4, dash=""):
        if len(points) < 2:
            return
        dashed = f' stroke-dasharray="{dash}"' if dash else ""
        way = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self.parts.append(
            f'<polyline points="{way}" fill="none" stroke="{stroke}" stroke-width="{width}" '
            f'stroke-linejoin="round"{dashed}/>'
        )

    def svg(self, height: float, title: str) -> str:
        head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}"'
        head += f' width="{WIDTH}" height="{height:.0f}"'
        head += ' font-family="DejaVu Sans, Verdana, Helvetica, Arial, sans-serif">'
        ground = f'<title>{escape(title)}</title>\n<rect width="100%" height="100%" fill="#ffffff"/>'
        return "\n".join([head, ground, *self.parts, "</svg>\n"])


def draw(result: dict) -> str:
    """The picture of a soak, as `soak.json` has it."""
    rows, timeline, settings = result["samples"], result["timeline"], result["settings"]
    end = max([rows[-1]["seconds"], result["stopped"], *(one["to"] or one["from"] for one in timeline)])
    canvas = Canvas()
    across = WIDTH - LEFT - RIGHT

    def x(second: float) -> float:
        return LEFT + second / end * across

    title = f"{result['version']}: {settings['vehicles']} vehicles, {settings['rate']:g} records/s each, "
    title += f"{settings['minutes']:g} minutes"
    canvas.text(16, 28, title, 16, weight="bold")
    good = all(check["holds"] for check in result["checks"])
    verdict = (
        "nothing lost, nothing grows"
        if good
        else "FAILED: " + ", ".join(check["name"] for check in result["checks"] if not check["holds"])
    )
    canvas.text(16, 48, verdict, 12, fill=GREEN if good else "#c0392b")

    lanes = 66
    panels = lanes + len(KINDS) * ROW + 30
    bottom = panels + len(PANELS) * (PANEL + GAP) - GAP
    _happenings(canvas, timeline, x, lanes, panels, bottom)
    for number, panel in enumerate(PANELS):
        _panel(
            canvas,
            panel,
            rows,
            result["growth"],
            result["warm_up"],
            result["stopped"],
            x,
            panels + number * (PANEL + GAP),
        )
    _times(canvas, x, end, bottom, across)
    for second, words in ((result["warm_up"], "warm-up ends"), (result["stopped"], "vehicles stop")):
        canvas.line(x(second), panels - 8, x(second), bottom, FAINT, 1, "4 3")
        canvas.text(x(second) - 3, panels - 10, words, 10, FAINT, "end")
    return canvas.svg(bottom + 44, title)


def _happenings(canvas, timeline, x, lanes, panels, bottom):
    for number, (kind, (colour, through)) in enumerate(KINDS.items()):
        top = lanes + number * ROW
        canvas.text(LEFT - 10, top + 12, kind, 11, anchor="end")
        canvas.line(LEFT, top + ROW / 2, WIDTH - RIGHT, top + ROW / 2, GRID)
        for one in timeline:
            if one["kind"] != kind:
                continue
            first, last = x(one["from"]), x(one["to"] or one["from"])
            canvas.box(first, top + 3, max(last - first, 2.5), ROW - 6, colour)
            if through:
                lasts = one["to"] is not None and one["to"] - one["from"] > 1
                canvas.box(first, panels, max(last - first, 1), bottom - panels, colour, 0.13 if lasts else 0.45)


def _panel(canvas, panel, rows, growth, warm_up, stop, x, top):
    values = [row[name] / panel.scale for row in rows for name, _, _ in panel.series if row[name] is not None]
    scale = Scale(values or [1], panel.logarithmic, panel.scale == 1)

    def y(value: float) -> float:
        return top + PANEL * (1 - scale.part(value / panel.scale))

    for mark in scale.marks:
        height = y(mark * panel.scale)
        canvas.line(LEFT, height, WIDTH - RIGHT, height, GRID)
        canvas.text(LEFT - 8, height + 4, f"{mark:,.10g}", 10, FAINT, "end")
    canvas.line(LEFT, top, LEFT, top + PANEL, FAINT)
    canvas.line(LEFT, top + PANEL, WIDTH - RIGHT, top + PANEL, FAINT)
    canvas.text(16, top + 12, panel.title, 12, weight="bold")
    canvas.text(16, top + 27, panel.unit, 10, FAINT)
    for number, (name, words, colour) in enumerate(panel.series):
        canvas.line(16, top + 44 + number * 16, 34, top + 44 + number * 16, colour, 2.5)
        canvas.text(40, top + 48 + number * 16, words, 10)
        drawn: list[tuple[float, float]] = []
        for row in rows:
            if row[name] is None:
                canvas.path(drawn, colour)
                drawn = []
            else:
                drawn.append((x(row["seconds"]), y(row[name])))
        canvas.path(drawn, colour)
        if name in growth:
            # A line through the middle of what it was fitted to.
            line = growth[name]
            ends = line["centre"] - line["rise"] / 2, line["centre"] + line["rise"] / 2
            canvas.path([(x(warm_up), y(ends[0])), (x(stop), y(ends[1]))], INK, 1.1, "6 4")


def _times(canvas, x, end, bottom, across):
    step = time_step(end)
    hours = step >= 3600
    per = 3600 if hours else 60
    for number in range(int(end / step) + 1):
        second = number * step
        canvas.line(x(second), bottom, x(second), bottom + 5, FAINT)
        canvas.text(x(second), bottom + 18, f"{second / per:g}", 10, FAINT, "middle")
    unit = "hours" if hours else "minutes"
    words = f"{unit} since the vehicles started; dashed: the line through the samples after the warm-up"
    canvas.text(LEFT + across / 2, bottom + 35, words, 11, FAINT, "middle")
