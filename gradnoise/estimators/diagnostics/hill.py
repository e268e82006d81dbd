"""Hill's exponent of a power-law tail."""

from __future__ import annotations

import math
from typing import Any

import scipy

from ...errors import ArgumentError
from ...statistics.estimate import Estimate, Status, check_level
from ..from_arrays.inputs import as_vector


def hill_index(values: Any, *, tail: float = 0.1, level: float = 0.95) -> Estimate:
    """Hill's exponent α of a tail P(X > x) ~ x^-α: 1/mean log(X_(i)/X_(k+1)) of the k largest.

    For an exact power law 2kα/α̂ is χ² with 2k degrees of freedom, which gives the interval; the
    value is biased upwards by α/(k - 1). For any other distribution it is the local slope of the
    tail on a logarithmic scale: finite for a Gaussian too, and larger for smaller `tail`.

    Args:
        values: positive, shape (n,), such as ‖g_i - ḡ‖.
        tail: fraction of the values that is taken as the tail, at least 2 values.
        level: coverage of the interval, for a power law.

    Returns:
        Estimate without unit; `samples` is k.

    Raises:
        ArgumentError: fewer than 3 positive values, or `tail` not between 0 and 1.

    Source: Hill 1975 (Ann. Statist. 3).

    Example:
        >>> float(hill_index([4.0, 2.0, 1.0], tail=0.7))  # 2/(log 4 + log 2)
        0.96...
    """
    check_level(level)
    if not 0 < tail < 1:
        raise ArgumentError(f"`tail` is a share between 0 and 1, such as 0.1; got {tail}")
    vector = as_vector("values", values)
    ordered = vector[vector > 0].sort(descending=True).values
    if len(ordered) < 3:
        raise ArgumentError(f"`values` must hold 3 positive numbers or more; got {len(ordered)}")
    count = min(max(2, int(tail * len(vector))), len(ordered) - 1)
    slope = float((ordered[:count] / ordered[count]).log().sum())
    if not slope:
        return Estimate(math.inf, 0.0, math.inf, level, math.nan, count, Status.NO_INTERVAL)
    value = count / slope
    low, high = (float(scipy.special.chdtri(2 * count, (1 + s * level) / 2)) for s in (1, -1))
    ends = (value * low / (2 * count), value * high / (2 * count))
    return Estimate(value, *ends, level, value / math.sqrt(count), count)
