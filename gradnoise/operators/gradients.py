"""The per-sample gradients as a matrix."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ..linalg.operator import Operator
from ..moments.measure import dots_by_batch
from ..per_sample.choice import choose
from ..per_sample.contract.engine import Engine
from ..problem.losses.loss_fn import LossFn
from ..problem.options import Options
from ..problem.problem import Problem
from ..problem.samples import MICRO_BATCH
from ..problem.sums import weighted_sums
from ..tensors.trees import TensorDict, compute_dtype
from .of_model import ModelOperator


class ByEngine(ModelOperator):
    """A matrix whose products are passes of a per-sample gradient engine."""

    def __init__(
        self,
        model: nn.Module,
        loss_fn: LossFn | nn.Module,
        data: Any,
        *,
        engine: str = "auto",
        max_samples: int | None = 4096,
        seed: int = 0,
        micro_batch: int = MICRO_BATCH,
        unit: str = "auto",
        group_size: int | None = None,
        process_group: Any = None,
    ) -> None:
        options = Options(
            max_samples=max_samples, seed=seed, micro_batch=micro_batch, unit=unit,
            group_size=group_size, process_group=process_group,
        )  # fmt: skip
        problem = Problem.open(model, loss_fn, data, options)
        self._start(problem, engine)
        self._group_size = problem.unit.size

    def _start(self, problem: Problem, engine: str | Engine = "auto") -> None:
        super()._start(problem)
        self._group_size = 1  # of a problem that is open: in units, whatever they are
        self._engine = engine if isinstance(engine, Engine) else chosen_engine(problem, engine)


def chosen_engine(problem: Problem, engine: str) -> Engine:
    """The engine of this name, or the one that "auto" takes for the largest micro-batch."""
    with problem.guard():
        found = choose(problem.objective, problem.largest_batch(), engine)
        found.eps = problem.objective.ranks.largest(found.eps)
        return found


class PerSampleGradients(ByEngine):
    """J, whose rows are the per-sample gradients g_i, shape (n, P); never stored.

    `J @ v` is g_iᵀv of every sample, from an engine's pass over the samples; `J.T @ w` is
    Σ_i w_i g_i, one weighted backward pass. Needs first derivatives only. In loss/parameter.

    Args:
        model, loss_fn, data, max_samples, seed, micro_batch, unit, group_size, process_group: as
            for `Hessian`.
        engine: as for `gradient_moments`.

    Raises:
        OperatorError: the vector does not fit.
        EngineError: the engine cannot measure this model.
        ModelError: the model was changed since.

    Example:
        >>> model = nn.Linear(1, 1, bias=False)
        >>> data = (torch.ones(2, 1), torch.tensor([[0.0], [1.0]]))
        >>> gradients = PerSampleGradients(model, nn.MSELoss(), data)
        >>> round(float(gradients.T @ torch.tensor([1.0, -1.0])), 5)  # 2w - 2(w - 1)
        2.0
    """

    def _start(self, problem: Problem, engine: str | Engine = "auto") -> None:
        super()._start(problem, engine)
        self.shape = problem.samples.count, problem.objective.size
        self.rows_are_parameters = False

    @property
    def T(self) -> Operator:
        return _Transposed(self)

    def products(self, block: Tensor) -> Tensor:
        return self.along(block).to(self.dtype)

    def along(self, block: Tensor) -> Tensor:
        """g_iᵀv for the columns v, shape (n, k), in float64 where the device has it; one pass."""
        parts = [parts.sum(2) for parts in self.along_by_parameter(block)]
        return self.problem.rows_of(parts, block.shape[1])

    def along_by_parameter(self, block: Tensor) -> Iterator[Tensor]:
        """The parts of g_iᵀv in each of p parameters, batch by batch, shape (n_b, k, p).

        Of several ranks each has the batches of its own samples.
        """
        for dots in dots_by_batch(self.problem, self._engine, self._directions(block)):
            yield torch.stack([*dots.values()], dim=2)

    def _directions(self, block: Tensor) -> TensorDict:
        """The columns by parameter, float32 at least: half precision would round or overflow."""
        named = self.problem.objective.local_parameters
        parts = torch.split(block.T, [p.numel() for p in named.values()], dim=1)
        return {
            name: part.reshape(len(part), *p.shape).to(device=p.device, dtype=compute_dtype([p]))
            for (name, p), part in zip(named.items(), parts, strict=True)
        }

    def weighted(self, weights: Tensor) -> Tensor:
        """Σ_i w_i g_i for the columns w, shape (P, k)."""
        return weighted_sums(self.problem, weights.T).T


class _Transposed(Operator):
    """Jᵀ, shape (P, n)."""

    def __init__(self, rows: PerSampleGradients) -> None:
        self._rows = rows
        self.shape = rows.shape[1], rows.shape[0]
        self.dtype, self.device = rows.dtype, rows.device

    @property
    def resolution(self) -> float:
        return self._rows.resolution

    @property
    def T(self) -> PerSampleGradients:
        return self._rows

    def products(self, block: Tensor) -> Tensor:
        return self._rows.weighted(block).to(self.dtype)
