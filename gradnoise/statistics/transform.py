"""Limits of the learning rate as Estimates, from the estimates they are made of.

The value is the formula at the values; the interval spans the formula at the ends of its parts'
intervals, which is at least as wide as it has to be.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from .estimate import Estimate, Status


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


def scaled(estimate: Estimate, factor: float) -> Estimate:
    """The estimate in units of 1/factor."""
    bounds = estimate.value * factor, estimate.low * factor, estimate.high * factor
    return replace(
        estimate, value=bounds[0], low=bounds[1], high=bounds[2], stderr=estimate.stderr * factor
    )
