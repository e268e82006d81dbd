"""One comparison of a measured with an exact value."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..statistics.estimate import Estimate

LEVEL = 1 - 1e-5  # of every interval: one of a hundred misses by chance in a run of a thousand


@dataclass(frozen=True)
class Check:
    """A quantity of a problem, its exact and its measured value.

    Args:
        problem, quantity: names.
        truth, found: the exact and the measured value.
        z: (found - truth)/standard error; nan where there is no standard error.
        holds: whether the interval contains the truth; for results without an interval, whether
            they agree.
    """

    problem: str
    quantity: str
    truth: float
    found: float
    z: float
    holds: bool


def statistical(problem: str, quantity: str, truth: float, found: Estimate) -> Check:
    """Whether an interval of level `LEVEL` contains the truth; it may be open at one end."""
    slack = 1e-9 * abs(truth) + 1e-12  # exact results are off by rounding
    holds = found.low - slack <= truth <= found.high + slack
    random = found.stderr > 1e-9 * abs(truth)  # a smaller error is rounding
    z = (float(found) - truth) / found.stderr if random else math.nan
    return Check(problem, quantity, truth, float(found), z, holds)


def exact(
    problem: str, quantity: str, truth: float, found: float, tolerance: float = 1e-6
) -> Check:
    """Whether two numbers agree to a relative tolerance."""
    holds = abs(found - truth) <= tolerance * max(abs(truth), 1e-12)
    return Check(problem, quantity, truth, float(found), math.nan, holds)
