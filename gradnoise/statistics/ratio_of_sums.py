"""Ratio of sums over a few measurements that are no draws of one population."""

from __future__ import annotations

import math
from collections.abc import Sequence

from .estimate import Estimate, Status
from .quantile import quantile

Pair = tuple[Estimate, Estimate]  # numerator and denominator of one measurement


def ratio_of_sums(pairs: Sequence[Pair], level: float) -> Estimate:
    """Σ numerators/Σ denominators; the interval says how far it moves with the choice of the pairs.

    On the logarithm θ: the delete-one jackknife variance (K - 1)/K Σ_t (θ_-t - θ̄)² over K pairs,
    plus the sampling variance, as if the errors of all pairs went the same way, with Student's t of
    K* - 1 degrees of freedom. K* = (Σd)²/Σd² counts the denominators d that matter.

    Args:
        pairs: may be empty.
        level: nominal coverage.

    Returns:
        The ratio; without a value where a sum is not positive, without an interval for one pair.

    Example:
        >>> known = [Estimate(x, x, x, 0.95, 0.0, 100) for x in (2.0, 4.0)]
        >>> print(ratio_of_sums([(known[0], known[1])] * 3, 0.95))
        0.500 (exact)
    """
    samples = max((part.samples for pair in pairs for part in pair), default=0)
    top, bottom = (math.fsum(float(pair[k]) for pair in pairs) for k in (0, 1))
    if not pairs or not top > 0 or not bottom > 0:
        status = Status.SIGNAL_BELOW_NOISE if top > 0 else Status.NOISE_BELOW_ERROR
        status = status if pairs else Status.NO_INTERVAL
        return Estimate(math.nan, 0.0, math.inf, level, math.nan, samples, status)
    value = top / bottom
    if len(pairs) == 1:
        return Estimate(value, 0.0, math.inf, level, math.nan, samples, Status.NO_INTERVAL)
    variance = _jackknife(pairs, top, bottom) + _sampling(pairs, top, bottom)
    reach = quantile(level, _matter(pairs) - 1) * math.sqrt(variance)
    factor = math.exp(reach) if reach < 700 else math.inf  # beyond, exp overflows
    return Estimate(value, value / factor, value * factor, level, math.nan, samples)


def _matter(pairs: Sequence[Pair]) -> float:
    """(Σd)²/Σd² of the denominators: K where all are equal, towards 1 where one outweighs all."""
    sizes = [abs(float(bottom)) for _, bottom in pairs]
    count = math.fsum(sizes) ** 2 / math.fsum(size**2 for size in sizes)
    return max(count, 1.1)  # Student's quantile of fewer degrees of freedom overflows


def _jackknife(pairs: Sequence[Pair], top: float, bottom: float) -> float:
    """Delete-one variance of the logarithm of the ratio; inf where one pair decides its sign."""
    left = [(top - float(a), bottom - float(b)) for a, b in pairs]
    if any(min(pair) <= 0 for pair in left):
        return math.inf
    logs = [math.log(a / b) for a, b in left]
    mean = math.fsum(logs) / len(logs)
    return (len(logs) - 1) / len(logs) * math.fsum((log - mean) ** 2 for log in logs)


def _sampling(pairs: Sequence[Pair], top: float, bottom: float) -> float:
    """Sampling variance of the logarithm, the errors of all pairs in the same direction."""
    errors = [
        math.fsum(pair[k].stderr for pair in pairs if pair[k].stderr > 0) / total
        for k, total in enumerate((top, bottom))
    ]
    return math.fsum(error**2 for error in errors)
