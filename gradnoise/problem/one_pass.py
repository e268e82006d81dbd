"""What is measured in one pass over the samples, which confirms what an earlier call found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from torch import nn

from ..errors import is_out_of_memory
from .confirmation import OutdatedError, are_independent
from .losses.loss_fn import LossFn
from .options import Options
from .problem import Problem

Found = TypeVar("Found")


def in_one_pass(
    find: Callable[[Problem], Found],
    model: nn.Module,
    loss_fn: LossFn | nn.Module,
    data: Any,
    options: Options | None = None,
    *,
    least: int = 2,
) -> Found:
    """What is found about a problem in a guard, where the pass itself may confirm what is known.

    Where it does not hold any more, everything is found out and measured anew.

    Args:
        find: the measurement; engines that evaluate all samples together `confirm` meanwhile.
        model, loss_fn, data, options, least: as of `Problem.guarded`.
    """
    with Problem.guarded(model, loss_fn, data, options, least=least, trusting=True) as problem:
        objective = problem.objective.plain
        try:
            found = find(problem)
            _confirm_late(problem)
            return found
        except Exception as error:  # of code that has changed, whatever it raises
            if not objective.is_unconfirmed or is_out_of_memory(error):
                raise
        assert objective.findings is not None  # or there was nothing to confirm
        objective.findings.clear()
    with Problem.guarded(model, loss_fn, data, options, least=least) as problem:
        return find(problem)


def _confirm_late(problem: Problem) -> None:
    """Where no pass has: engines that take samples apart see none among others."""
    objective = problem.objective.plain
    if objective.is_unconfirmed and not are_independent(objective, problem.largest_batch()):
        raise OutdatedError
