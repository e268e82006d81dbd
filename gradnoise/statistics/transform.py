"""Functions of estimates, as estimates.

The value is the function at the values; the interval spans the function at the ends of its parts'
intervals, which is at least as wide as it has to be.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from .estimate import Estimate, Status
from .interval import flag_zero, symmetric


def falling(
    function: Callable[..., float], first: Estimate, second: Estimate | None = None
) -> Estimate:
    """A limit that falls as each of its parts grows."""
    parts = [first] if second is None else [first, second]
    for part in parts:
        if part.status is Status.NEGATIVE_CURVATURE:
            return undefined(part)
    bad = next((part for part in parts if not part.is_resolved), first)
    lows = [max(part.low, 0.0) for part in parts]
    highs = [part.high for part in parts]
    low = function(*highs) if math.isfinite(highs[0]) else 0.0
    high = function(*lows) if lows[0] > 0 else math.inf
    values = [float(part) for part in parts]
    value = math.nan if any(map(math.isnan, values)) else function(*values)
    return Estimate(value, low, high, first.level, math.nan, first.samples, bad.status)


def monotone(function: Callable[[float], float], part: Estimate) -> Estimate:
    """What follows from one part that cannot be negative, by a function that rises or falls."""
    if part.status is Status.NEGATIVE_CURVATURE:
        return undefined(part)
    low, high = sorted(function(max(end, 0.0)) for end in (part.low, part.high))
    value = math.nan if math.isnan(part.value) else function(part.value)
    return Estimate(value, low, high, part.level, math.nan, part.samples, part.status)


def undefined(part: Estimate) -> Estimate:
    """What follows from a part whose curvature is negative: nothing."""
    bounds = (math.nan, -math.inf, math.inf)
    return Estimate(*bounds, part.level, math.nan, part.samples, part.status)


def scaled(estimate: Estimate, factor: float, offset: float = 0.0) -> Estimate:
    """factor·x + offset with a positive factor."""
    return replace(
        Estimate(**{name: getattr(estimate, name) for name in Estimate.__dataclass_fields__}),
        value=factor * estimate.value + offset,
        low=factor * estimate.low + offset,
        high=factor * estimate.high + offset,
        stderr=factor * estimate.stderr,
    )


def squared(estimate: Estimate) -> Estimate:
    """x² of an x that is not negative."""
    low = max(estimate.low, 0.0) ** 2
    stderr = 0.0 if estimate.is_exact else math.nan
    return replace(estimate, value=estimate.value**2, low=low, high=estimate.high**2, stderr=stderr)


def within(estimate: Estimate, least: float, most: float) -> Estimate:
    """The estimate cut to the values that its quantity can have."""

    def cut(number: float) -> float:
        return number if math.isnan(number) else min(max(number, least), most)

    low, high = cut(estimate.low), cut(estimate.high)
    return replace(estimate, value=cut(estimate.value), low=low, high=high)


def unknown(level: float, samples: int, status: Status) -> Estimate:
    return Estimate(math.nan, 0.0, math.inf, level, math.nan, samples, status)


def square_root(square: float, variance: float, *, level: float, samples: int) -> Estimate:
    """√x of an estimated x; not resolved where x is not distinguishable from zero."""
    found = symmetric(square, variance, level=level, samples=samples, freedom=samples - 1)
    found = flag_zero(found)
    value = math.sqrt(square) if square > 0 else math.nan
    low, high = (math.sqrt(max(end, 0.0)) for end in (found.low, found.high))
    stderr = found.stderr / (2 * value) if value else 0.0
    status = found.status if square > 0 else Status.SIGNAL_BELOW_NOISE
    return Estimate(value, low, high, level, stderr, samples, status)
