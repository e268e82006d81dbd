"""What every per-sample gradient engine gives, however it computes it."""

from __future__ import annotations

import abc
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..errors import LossError
from ..objective import Objective
from ..trees import Batch, TensorDict, widen


@dataclass(frozen=True)
class Chunk:
    """Some consecutive samples of a batch.

    Args:
        losses: shape (n,).
        gradients: name -> (n, *parameter.shape), in the dtype of the parameter.
    """

    losses: Tensor
    gradients: TensorDict

    def sq_norms(self) -> TensorDict:
        """‖g_i‖² per parameter, name -> (n,), accumulated wide.

        Raises:
            LossError: a gradient that is not finite (its loss can still be).
        """
        return {name: sq_norm(name, widen(gradient)) for name, gradient in self.gradients.items()}


def sq_norm(name: str, gradient: Tensor) -> Tensor:
    """Sum of squares over all but the leading dimension, (n, ...) -> (n,).

    Raises:
        LossError: a sum that is not finite.
    """
    norms = gradient.square()
    norms = norms.flatten(1).sum(1) if gradient.ndim > 1 else norms
    bad = (~torch.isfinite(norms)).nonzero().flatten().tolist()
    if bad:
        raise LossError(
            f"the gradient of parameter {name!r} is not finite for {len(bad)} of {len(norms)} "
            f"samples (positions {bad[:5]}) although their losses are: look for sqrt, log or "
            f"division at zero, or overflow in half precision."
        )
    return norms


class Engine(abc.ABC):
    """Per-sample gradients g_i = ∇ℓ_i of one objective.

    Use inside `objective.guard()`.
    """

    name: ClassVar[str]

    def __init__(self, objective: Objective) -> None:
        self.objective = objective

    @abc.abstractmethod
    def chunks(self, batch: Batch) -> Iterator[Chunk]:
        """The samples of a batch in order, as many at a time as memory allows."""
