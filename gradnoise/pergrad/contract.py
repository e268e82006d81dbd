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
        norms = {name: sq_norm(gradient) for name, gradient in self.gradients.items()}
        for name, values in norms.items():
            if not torch.isfinite(values).all():
                bad = (~torch.isfinite(values)).nonzero().flatten().tolist()
                raise LossError(
                    f"the gradient of parameter {name!r} is not finite for {len(bad)} of "
                    f"{len(values)} samples (positions {bad[:5]}) although their losses are: "
                    f"look for sqrt, log or division at zero, or overflow in half precision."
                )
        return norms


def sq_norm(gradient: Tensor) -> Tensor:
    """Sum of squares over all but the leading dimension, (n, ...) -> (n,), wide."""
    return widen(gradient).flatten(1).square().sum(1) if gradient.ndim > 1 else widen(gradient) ** 2


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
