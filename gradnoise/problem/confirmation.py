"""Whether samples are still independent, as an earlier call found: a few of them confirm it.

No signature (`known`) tells what the values of tensors, and objects deep inside of others, do.
Losses of a few samples alone are held to their losses among others: either among five, or among all
samples of the pass that is measured, which then costs the few alone and no more.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import GradNoiseError
from ..tensors.trees import Batch, sample_count, select
from .checks import depend_on_others, differs, tolerance_of
from .objective import Objective
from .unit import Seeded

CONFIRMED, REPLAYED = 5, 8  # samples that confirm what an earlier call found
ALONE = slice(1, 3)  # of the five


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
        few = select(batch, _spread(batch))
        whole = objective.losses(few).detach()
        return _are_those_alone(objective, whole[ALONE], select(few, ALONE), whole)
    except GradNoiseError:  # of a loss that has changed; what follows says why
        return False


def confirm(objective: Objective, batch: Batch, losses: Tensor) -> None:
    """Hold two of the losses of a pass to those of the same samples alone, where that is left.

    Args:
        objective: `is_unconfirmed` is False afterwards.
        batch: all samples of the pass.
        losses: of all of them together, shape (n,).

    Raises:
        OutdatedError: they differ.
    """
    if not objective.is_unconfirmed or sample_count(batch) < CONFIRMED:
        return
    chosen = _spread(batch)[ALONE]
    try:
        holds = _are_those_alone(objective, losses[chosen], select(batch, chosen), losses)
    except GradNoiseError:
        holds = False
    if not holds:
        raise OutdatedError
    objective.is_unconfirmed = False


def _spread(batch: Batch) -> Tensor:
    """Positions of a few samples from all over the batch."""
    count = sample_count(batch)
    return torch.linspace(0, count - 1, min(count, CONFIRMED)).long()


def _are_those_alone(objective: Objective, among: Tensor, few: Batch, whole: Tensor) -> bool:
    """Whether losses among others are those without them."""
    return not differs(among, objective.losses(few), tolerance_of(objective, whole))
