"""One comparison of what is measured with what is true."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..statistics.estimate import Estimate

LEVEL = 1 - 1e-5  # of every interval: a hundred of them miss by chance once in a thousand runs


@dataclass(frozen=True)
class Check:
    """A quantity of a problem, what is true and what was found.

    Args:
        problem, quantity: names.
        truth, found: numbers.
        z: how far off in standard errors, nan where the interval does not come from one, or what
            was found is exact.
        holds: whether the interval holds the truth; of exact results, whether they agree.
    """

    problem: str
    quantity: str
    truth: float
    found: float
    z: float
    holds: bool


def statistical(problem: str, quantity: str, truth: float, found: Estimate) -> Check:
    """Whether an interval of level `LEVEL` holds the truth; a bound that is true does."""
    slack = 1e-9 * abs(truth) + 1e-12  # of results that are exact but for rounding
    holds = found.low - slack <= truth <= found.high + slack
    known = found.stderr > 1e-9 * abs(truth)  # less is rounding
    z = (float(found) - truth) / found.stderr if known else math.nan
    return Check(problem, quantity, truth, float(found), z, holds)


def exact(
    problem: str, quantity: str, truth: float, found: float, tolerance: float = 1e-6
) -> Check:
    """Whether two numbers agree to a relative tolerance."""
    holds = abs(found - truth) <= tolerance * max(abs(truth), 1e-12)
    return Check(problem, quantity, truth, float(found), math.nan, holds)
