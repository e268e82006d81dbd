"""Curvature with the decoupled weight decay of an optimizer."""

from __future__ import annotations

from torch import Tensor

from ..linalg.operator import Operator
from ..problem.preconditioner import Preconditioner
from .of_model import ModelOperator


class Decayed(Operator):
    """A + E, what a step with decoupled weight decay is stable against; see `Preconditioned`.

    E decays the parameters whatever the loss: it belongs to λ, and to no noise scale.
    """

    def __init__(self, operator: ModelOperator, preconditioner: Preconditioner) -> None:
        self._operator, self._preconditioner = operator, preconditioner
        self.shape, self.dtype, self.device = operator.shape, operator.dtype, operator.device
        self.parameters, self.rows_are_parameters = operator.parameters, True

    @property
    def resolution(self) -> float:
        return self._operator.resolution

    @property
    def T(self) -> Decayed:
        return self

    def products(self, block: Tensor) -> Tensor:
        return self._operator.products(block) + self._preconditioner.decoupled(block)


def with_decay(operator: ModelOperator) -> Operator:
    """A + E, or A itself where nothing is decoupled."""
    preconditioner = operator.problem.objective.preconditioner
    if preconditioner is None or not preconditioner.is_decayed:
        return operator
    return Decayed(operator, preconditioner)
