"""Curvature with the decoupled weight decay of an optimizer."""

from __future__ import annotations

from torch import Tensor

from ..linalg.operator import Operator
from ..problem.preconditioner import Metric
from .of_model import ModelOperator


class Decayed(Operator):
    """A + E, what a step with decoupled weight decay is stable against; see `Preconditioned`.

    E decays the parameters whatever the loss: it belongs to λ, and to no noise scale.
    """

    def __init__(self, operator: ModelOperator, metric: Metric) -> None:
        self._operator, self._metric = operator, metric
        self.shape, self.dtype, self.device = operator.shape, operator.dtype, operator.device
        self.parameters, self.rows_are_parameters = operator.parameters, True

    @property
    def resolution(self) -> float:
        return self._operator.resolution

    @property
    def T(self) -> Decayed:
        return self

    def products(self, block: Tensor) -> Tensor:
        return self._operator.products(block) + self._metric.decoupled(block)


def with_decay(operator: ModelOperator) -> Operator:
    """A + E, or A itself where nothing is decoupled."""
    metric = operator.problem.objective.metric
    return Decayed(operator, metric) if metric is not None and metric.is_decayed else operator
