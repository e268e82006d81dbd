"""Where a function that falls at first rises above its start."""

from __future__ import annotations

import math
from collections.abc import Callable

FACTOR = 1e9  # how far above and below the first point it is looked for
GROWTH = 10.0  # from point to point at most: a rise and fall between two points is not seen
LEAST = 1.2  # and at least
STEEPEST = 10.0  # slope that counts, in units of that at 0: a wall does not move the line
CLEAR = 4.0  # times the rounding: a fall of this size shows
TOLERANCE = 1e-4  # of f(x)/x at the root, in units of the slope at 0
WIDTH = 1e-3  # or of the bracket, relative

Point = tuple[float, float]  # x and f(x)/x


def first_rise(
    change: Callable[[float], float], slope: float, start: float, rounding: float = 0.0
) -> tuple[float, float]:
    """The first x > 0 beyond which f > f(0) = 0, as a bracket, for f(x) = -slope·x + O(x²).

    f(x)/x is solved for its root. Where f is a quadratic that is a line, and from a start within a
    factor of ten the second or third point is the root. Both ends are the same where it was found;
    the upper end is ∞ where f does not rise up to `FACTOR` times `start`, and the lower end 0 where
    it does at all points down to `start` over it.

    Args:
        change: f, infinite where it has no value.
        slope: -f'(0), positive.
        start: the first point.
        rounding: error of f; near 0, where a fall is no larger, a rise has to be larger to count.

    Example:
        >>> first_rise(lambda x: x * x - 3 * x, slope=3.0, start=1.0)
        (3.0, 3.0)
    """
    before: Point = (0.0, -slope)
    low, high = before, (math.inf, math.inf)
    at, rose = start, None
    while True:
        gain, blind = change(at), slope * at <= CLEAR * rounding  # a fall would not show
        if abs(gain) <= TOLERANCE * slope * at and not blind:
            return at, at
        if gain > (rounding if blind else 0.0):
            low = (low[0], low[1] / 2) if rose is True and low[0] else low  # Illinois' rule
            high, rose = (at, min(gain / at, STEEPEST * slope)), True
        else:
            high = (high[0], high[1] / 2) if rose is False else high
            before, rose = low, False
            low = (at, -slope if blind and gain >= -rounding else gain / at)
        if high[0] - low[0] <= WIDTH * high[0] < math.inf:
            return low[0], low[0]
        if low[0] >= FACTOR * start or high[0] <= start / FACTOR:
            return low[0], high[0]
        at = _next(before, low, high)


def _next(before: Point, low: Point, high: Point) -> float:
    """The next point, below `high` and above `low`."""
    if math.isinf(high[0]):
        guess = _root(before, low)
        return min(max(guess, LEAST * low[0]), GROWTH * low[0])
    return _root(low, high) if low[0] else max(_root(low, high), high[0] / GROWTH)


def _root(first: Point, second: Point) -> float:
    """Where the line through two points is zero; ∞ if it does not rise."""
    rise = second[1] - first[1]
    return first[0] - first[1] * (second[0] - first[0]) / rise if rise > 0 else math.inf
