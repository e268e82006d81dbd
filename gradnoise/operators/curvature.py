"""The common base of the Hessian and the Gauss-Newton matrix."""

from __future__ import annotations

import abc
from typing import Any

from torch import Tensor, nn

from ..linalg.operator import MEMORY_BUDGET
from ..problem.gathering import by_layers_or_whole
from ..problem.losses.loss_fn import LossFn
from ..problem.options import AUTO, Options
from ..problem.problem import Problem
from ..problem.samples import MICRO_BATCH
from .of_model import ModelOperator
from .products import HessianProducts, disagreement


class Curvature(ModelOperator):
    """A symmetric matrix that is a mean over the samples."""

    symmetric = True
    _products: HessianProducts

    def __init__(
        self,
        model: nn.Module,
        loss_fn: LossFn | nn.Module,
        data: Any,
        *,
        hvp: str = "auto",
        memory_budget: int = MEMORY_BUDGET,
        max_samples: int | None = 4096,
        seed: int = 0,
        micro_batch: int = MICRO_BATCH,
        unit: str = "auto",
        group_size: int | None = None,
        process_group: Any = None,
        gather: str = AUTO,
    ) -> None:
        options = Options(
            max_samples=max_samples, seed=seed, micro_batch=micro_batch, unit=unit,
            group_size=group_size, process_group=process_group, gather=gather,
        )  # fmt: skip
        by_layers_or_whole(
            lambda own: self._start(Problem.open(model, loss_fn, data, own), hvp, memory_budget),
            options,
        )

    @abc.abstractmethod
    def _start(
        self, problem: Problem, hvp: str = "auto", memory_budget: int = MEMORY_BUDGET
    ) -> None:
        super()._start(problem)

    def products(self, block: Tensor) -> Tensor:
        return self._around(self._products, block)

    @property
    def product_error(self) -> float:
        """Relative error of a product beyond rounding: that of differences of gradients, or 0."""
        return self._products.resolution or 0.0

    def product_error_along(self, vector: Tensor) -> float:
        """The same of the product with this vector, where that is larger; two products more."""
        halved = self._products.halved()
        if halved is None:
            return 0.0
        own, other = (self._around(way, vector[:, None]) for way in (self._products, halved))
        return max(self.product_error, disagreement(own, other, self.space))

    @property
    def graph_bytes(self) -> float:
        """Bytes of the graphs of all samples; those within `memory_budget` are kept."""
        return self._products.graph_bytes

    def forget(self) -> None:
        """Drop the kept graphs; the next product builds them again."""
        self._products.forget()
