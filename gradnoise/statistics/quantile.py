"""Quantiles of Student's t. No torch is imported here: `gradnoise watch` answers at once."""

from __future__ import annotations

import math

import scipy

from .estimate import check_level


def quantile(level: float, freedom: float) -> float:
    """Two-sided quantile of Student's t: 1.96 for level 0.95 and infinite degrees of freedom.

    Raises:
        ArgumentError: a level that is not between 0 and 1.
    """
    check_level(level)
    tail = 0.5 + level / 2
    return float(
        scipy.special.ndtri(tail) if math.isinf(freedom) else scipy.special.stdtrit(freedom, tail)
    )
