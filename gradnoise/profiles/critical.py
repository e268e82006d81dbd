"""The critical batch size of a run from trΣ, the sharpness and the fall of the loss."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ..errors import NotMeasuredError, positive
from ..history.critical import of_fall
from ..statistics.estimate import Estimate, Status
from .results import Results, other_optimizer

LONGER = 1.5  # the slope of the loss is taken over this factor in the length of the run, at least
RECENT = 3.0  # λ is the largest since the run was so many times shorter


def critical_batch_size(
    members: Sequence[Any], steps: Sequence[float], ahead: float | None, simple: Estimate
) -> Estimate:
    """ε_max·trΣ/D beside the B_simple of the run; see `Pool.critical_batch_size`."""
    _check(members, steps)
    last, now = members[-1], steps[-1]
    longer = 1.0 if ahead is None else 1 + now / positive("ahead", ahead)
    pairs = list(zip(steps, members, strict=True))
    top = max(float(member.sharpness) for step, member in pairs if RECENT * step >= now)
    noise, fall = float(last.trace_cov), _fall(pairs)
    samples, level, nan = last.trace_cov.samples, simple.level, math.nan
    if not (top > 0 and noise > 0) or math.isnan(fall):
        return Estimate(nan, 0.0, math.inf, level, nan, samples, Status.SIGNAL_BELOW_NOISE)
    own = getattr(last, "optimizer", None)
    rate = 2 / top / (1 - (own.momentum if own else 0.0))
    return of_fall(longer * rate * noise, (fall,) * 3, float(simple), level, samples)


def _check(members: Sequence[Any], steps: Sequence[float]) -> None:
    """Raise NotMeasuredError unless everything is there."""
    if not steps:
        raise NotMeasuredError(
            "`critical_batch_size` needs to know when the measurements were taken: "
            "gn.pool(profiles, steps=[...])"
        )
    for name in ("loss", "sharpness"):
        if not all(isinstance(getattr(member, name, None), Estimate) for member in members):
            raise NotMeasuredError(
                f"`critical_batch_size` needs the `{name}` of every measurement: pool profiles"
            )
    names = [other_optimizer(member) for member in members if isinstance(member, Results)]
    if any(names):
        raise NotMeasuredError(
            f"`critical_batch_size` needs the metric of {names[-1]}, which trains the model: "
            f'profile with metric="optimizer"'
        )


def _fall(pairs: list[tuple[float, Any]]) -> float:
    """D = -dL/d ln t at the end of the run; nan where no measurement is early enough."""
    now, last = pairs[-1]
    earlier = [(step, member) for step, member in pairs if step * LONGER <= now]
    if not earlier:
        return math.nan
    step, first = earlier[-1]
    return (float(first.loss) - float(last.loss)) / math.log(now / step)
