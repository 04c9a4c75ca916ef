"""Whether something grows: a straight line through the samples after the warm-up, and what may be noise.

Neighbouring samples are alike, and an outage lifts many of them at once, so that the line is not laid through samples
but through the medians of stretches of equal length. It grows when the line rises, from the first to the last, by more
than a floor, and the rise is either more than twice its standard error or more than three floors. The floor is what an
allocator, or a connection that comes and goes, may do without a leak; over a longer soak the same floor is a smaller
growth per day.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass

STRETCHES = 12
DAY = 86_400


@dataclass(frozen=True)
class Growth:
    """A line through samples, in their unit: their median; its middle, its rise over `span` seconds, its error."""

    typical: float
    centre: float
    rise: float
    error: float
    span: float
    floor: float

    @property
    def per_day(self) -> float:
        return self.rise / self.span * DAY

    @property
    def floor_per_day(self) -> float:
        return self.floor / self.span * DAY

    def grows(self) -> bool:
        return self.rise > self.floor and (self.rise > 2 * self.error or self.rise > 3 * self.floor)

    def as_dict(self) -> dict:
        more = {"per_day": self.per_day, "floor_per_day": self.floor_per_day, "grows": self.grows()}
        return asdict(self) | more


def medians(points: Sequence[tuple[float, float]], stretches: int = STRETCHES) -> list[tuple[float, float]]:
    """The middle of each stretch of time and the median of its values; empty stretches are left out."""
    first, last = points[0][0], points[-1][0]
    length = (last - first) / stretches or 1
    held: dict[int, list[float]] = {}
    for at, value in points:
        held.setdefault(min(int((at - first) / length), stretches - 1), []).append(value)
    return [(first + (number + 0.5) * length, statistics.median(values)) for number, values in sorted(held.items())]


def growth(points: Sequence[tuple[float, float]], floor: float) -> Growth:
    """Of samples (seconds, value) in the order of their time."""
    through = medians(points)
    if len(through) < 3:
        raise ValueError("too few samples for a line")
    span = points[-1][0] - points[0][0]
    slope, intercept = statistics.linear_regression(*zip(*through, strict=True))
    middle = statistics.fmean(at for at, _ in through)
    spread = sum((at - middle) ** 2 for at, _ in through)
    off = sum((value - intercept - slope * at) ** 2 for at, value in through)
    error = math.sqrt(off / (len(through) - 2) / spread)
    typical = statistics.median(value for _, value in points)
    centre = intercept + slope * (points[0][0] + points[-1][0]) / 2
    return Growth(typical, centre, slope * span, error * span, span, floor)
