"""Whether samples are still independent, as an earlier call found: a few of them confirm it.

No signature (`known`) tells what the values of tensors, and objects deep inside of others, do.
Losses of a few samples alone are held to their losses among others: either among five, or among all
samples of the pass that is measured, which then costs the few alone and no more.
"""

from __future__ import annotations

import math
import sys

import torch
from torch import Tensor

from ..errors import GradNoiseError
from ..tensors.trees import Batch, sample_count, select
from .checks import depend_on_others, differs, tolerance_of
from .objective import Objective
from .unit import Seeded

CONFIRMED, REPLAYED = 5, 8  # samples that confirm what an earlier call found


class OutdatedError(Exception):
    """What an earlier call found about the model does not hold any more."""


def are_independent(objective: Objective, batch: Batch) -> bool:
    """Whether a few losses are those of independent samples, as an earlier call found.

    The second and third of five samples alone have others before and behind them than among the
    five. Of random losses the draws belong to a place in the batch, see `is_coupled_replayed`.
    """
    if sample_count(batch) < 2:
        return True
    try:
        if isinstance(batch, Seeded):
            return not depend_on_others(objective, select(batch, slice(0, REPLAYED)))
        count = sample_count(batch)
        few = select(batch, torch.linspace(0, count - 1, min(count, CONFIRMED)).long())
        whole, alone = objective.losses(few).detach(), slice(1, 3)
        part = objective.losses(select(few, alone)).detach()
        return not differs(whole[alone], part, tolerance_of(objective, whole))
    except GradNoiseError:  # of a loss that has changed; what follows says why
        return False


def confirm(objective: Objective, batch: Batch, losses: Tensor) -> None:
    """Hold two of the losses of a pass to those of the same samples alone, where that is left.

    Args:
        objective: `is_unconfirmed` is False afterwards.
        batch: all samples of the pass.
        losses: of all of them together, shape (n,), detached.

    Raises:
        OutdatedError: they differ.
    """
    count = len(losses)
    if not objective.is_unconfirmed or count < CONFIRMED:
        return
    first = (count // 4 - 1) | 1  # odd and not in the middle: no pairs, and no mirror images
    pair = slice(first, first + 2)
    try:
        alone = objective.losses(select(batch, pair)).tolist()
    except GradNoiseError as error:
        raise OutdatedError from error
    numbers, rounding = (losses[pair].tolist(), alone), torch.finfo(losses.dtype).eps
    # what allows more, coarser dtypes in the model, is only looked for where it matters
    if _differ(*numbers, math.sqrt(rounding)) and _differ(
        *numbers, tolerance_of(objective, losses)
    ):
        raise OutdatedError
    objective.is_unconfirmed = False


def _differ(among: list[float], alone: list[float], tolerance: float) -> bool:
    """`differs` for a few numbers, which torch takes longer for."""
    scale = max(sum(map(abs, among)) / len(among), sys.float_info.min)
    gaps = (abs(first - second) for first, second in zip(among, alone, strict=True))
    return max(gaps) > tolerance * scale
