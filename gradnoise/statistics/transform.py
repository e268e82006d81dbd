"""Functions of estimates, as estimates.

The value is the function at the values. The interval is the function at the ends of the parts'
intervals: conservative where it depends on several parts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace

from .estimate import Estimate, Status
from .interval import flag_zero, symmetric


def decreasing(
    function: Callable[..., float], first: Estimate, second: Estimate | None = None
) -> Estimate:
    """A limit of the learning rate that decreases in each of its parts.

    Args:
        function: of one or two numbers that are not negative; ∞ at zero of the first.
        first, second: the parts.
    """
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
    """An increasing or decreasing function of one quantity that cannot be negative."""
    if part.status is Status.NEGATIVE_CURVATURE:
        return undefined(part)
    low, high = sorted(function(max(end, 0.0)) for end in (part.low, part.high))
    value = math.nan if math.isnan(part.value) else function(part.value)
    return Estimate(value, low, high, part.level, math.nan, part.samples, part.status)


def undefined(part: Estimate) -> Estimate:
    """The estimate that depends on a negative curvature: no value, no bounds, the same status."""
    bounds = (math.nan, -math.inf, math.inf)
    return Estimate(*bounds, part.level, math.nan, part.samples, part.status)


def scaled(estimate: Estimate, factor: float, offset: float = 0.0) -> Estimate:
    """factor·x + offset with a positive factor; an `Estimate`, whatever subclass x is."""
    value, low, high = (
        factor * number + offset for number in (estimate.value, estimate.low, estimate.high)
    )
    stderr = factor * estimate.stderr
    return Estimate(value, low, high, estimate.level, stderr, estimate.samples, estimate.status)


def in_samples(estimate: Estimate, group_size: int, *, keep: bool = False) -> Estimate:
    """What was estimated of groups of b samples, in samples: b times as large, or as it is."""
    if group_size == 1:
        return estimate
    found = estimate if keep else scaled(estimate, group_size)
    return replace(found, samples=group_size * estimate.samples)


def all_in_samples(
    named: Mapping[str, object], group_size: int, *, kept: Collection[str]
) -> dict[str, Estimate]:
    """`in_samples` of the estimates among these; those in `kept` stay as they are."""
    return {
        name: in_samples(item, group_size, keep=name in kept)
        for name, item in named.items()
        if isinstance(item, Estimate)
    }


def squared(estimate: Estimate) -> Estimate:
    """x² of a quantity that cannot be negative."""
    low = max(estimate.low, 0.0) ** 2
    stderr = 0.0 if estimate.is_exact else math.nan
    return replace(estimate, value=estimate.value**2, low=low, high=estimate.high**2, stderr=stderr)


def within(estimate: Estimate, least: float, most: float) -> Estimate:
    """Value and interval cut to [least, most], the values that the quantity can have."""

    def cut(number: float) -> float:
        return number if math.isnan(number) else min(max(number, least), most)

    low, high = cut(estimate.low), cut(estimate.high)
    return replace(estimate, value=cut(estimate.value), low=low, high=high)


def unknown(level: float, samples: int, status: Status) -> Estimate:
    """A quantity that is not negative and of which nothing is measured: [0, ∞) without a value."""
    return Estimate(math.nan, 0.0, math.inf, level, math.nan, samples, status)


def square_root(square: float, variance: float, *, level: float, samples: int) -> Estimate:
    """√x of an estimated x; not resolved where x is not distinguishable from zero."""
    x = symmetric(square, variance, level=level, samples=samples, freedom=samples - 1)
    x = flag_zero(x)
    value = math.sqrt(square) if square > 0 else math.nan
    low, high = (math.sqrt(max(end, 0.0)) for end in (x.low, x.high))
    status = x.status if square > 0 else Status.SIGNAL_BELOW_NOISE
    return Estimate(value, low, high, level, x.stderr / (2 * value), samples, status)
