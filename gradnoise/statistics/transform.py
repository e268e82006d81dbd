"""Limits of the learning rate as Estimates, from the estimates they are made of.

The value is the formula at the values; the interval spans the formula at the ends of its parts'
intervals, which is at least as wide as it has to be.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from ..learning_rate.formulas import greedy_lr, positive
from .estimate import Estimate, Status


def falling(
    function: Callable[..., float], first: Estimate, second: Estimate | None = None
) -> Estimate:
    """A limit that falls as each of its parts grows."""
    parts = [first] if second is None else [first, second]
    for part in parts:
        if part.status is Status.NEGATIVE_CURVATURE:
            return _undefined(part)
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
        return _undefined(part)
    low, high = sorted(function(max(end, 0.0)) for end in (part.low, part.high))
    value = math.nan if math.isnan(part.value) else function(part.value)
    return Estimate(value, low, high, part.level, math.nan, part.samples, part.status)


def greedy(
    signal: Estimate, curvature: Estimate, trace: Estimate, scale: Estimate, batch_size: float
) -> Estimate:
    """ε_opt(B) = |G|²/(GᵀHG + tr(HΣ)/B) from |G|², GᵀHG, tr(HΣ) and their B_noise."""
    batch_size = positive("batch_size", batch_size)
    if scale.status is Status.NEGATIVE_CURVATURE:
        return _undefined(scale)
    least = curvature.low + trace.low / batch_size
    most = curvature.high + trace.high / batch_size
    low = max(signal.low, 0.0) / most if most > 0 else 0.0
    high = signal.high / least if least > 0 and signal.high > 0 else math.inf
    value = math.nan
    if scale.is_resolved and float(signal) > 0:
        value = greedy_lr(float(signal), float(curvature), float(scale), batch_size)
        low, high = min(low, value), max(high, value)  # where all is exact, but for rounding
    status = signal.status if not signal.is_resolved else scale.status
    return Estimate(value, low, high, signal.level, math.nan, signal.samples, status)


def _undefined(part: Estimate) -> Estimate:
    bounds = (math.nan, -math.inf, math.inf)
    return Estimate(*bounds, part.level, math.nan, part.samples, part.status)
