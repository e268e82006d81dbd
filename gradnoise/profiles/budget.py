"""How many samples a budget is enough for."""

from __future__ import annotations

import math
from numbers import Real

from ..errors import ArgumentError
from ..estimators.curvature.few_samples import LEAST
from ..measurement.opened import Opened
from .expected import expected_work

LEAST_SAMPLES = 32  # of a budget
FINER = 2**0.25  # from one number of samples to the next that is tried


def within_budget(opened: Opened, budget: float | None, accuracy: float) -> Opened:
    """As many of the samples as a budget is enough for.

    Args:
        opened: all samples.
        budget: plain passes over all of them; None for no limit.
        accuracy: half the interval of B_noise that is enough.

    Raises:
        ArgumentError: it is not enough for a profile, or no positive number.
    """
    if budget is None:
        return opened
    if isinstance(budget, bool) or not isinstance(budget, Real) or not 0 < budget < math.inf:
        raise ArgumentError(
            f"`budget` must be a number of plain passes over the samples, like 25; got {budget!r}"
        )
    samples, divisible = opened.problem.samples, opened.problem.is_divisible
    count, least = samples.count, math.inf
    fewest = LEAST if divisible and count >= LEAST else min(LEAST_SAMPLES, count)
    while count >= fewest:
        whole = count == samples.count and samples.sampling_factor == 0
        work = expected_work(count, whole=whole, divisible=divisible, accuracy=accuracy)
        least = min(least, work.passes(samples.count))
        if least <= budget:
            return opened.of_some(count)
        count = max(fewest, int(count / FINER)) if count > fewest else 0
    units = f"{samples.count} {'groups of samples' if opened.unit.is_group else 'samples'}"
    raise ArgumentError(
        f"`budget` = {budget:g} plain passes over {units} is not enough: a profile takes about "
        f"{math.ceil(least)} at least, or `max_samples` takes fewer samples from the start"
    )


def budget_note(opened: Opened, within: Opened) -> str:
    """That a budget left samples out."""
    measured, given = within.problem.samples.count, opened.problem.samples.count
    if measured == given:
        return ""
    return f"`budget` is enough for {measured} of {given} samples; the others were not measured"
