"""The matrices of a model on fixed samples."""

from __future__ import annotations

import abc
from typing import Any

import torch
from torch import Tensor, nn

from ..directional import require_second_order, weighted_sum
from ..losses import LossFn
from ..pergrad import Engine, choose
from ..problem import Problem
from ..samples import MICRO_BATCH
from ..streaming import slopes
from ..trees import compute_dtype, unflatten
from .base import Operator
from .graphs import MEMORY_BUDGET, GaussNewtonGraph
from .hvp import HessianProducts, ThroughGraphs, choose_products


class ModelOperator(Operator):
    """A matrix of a model: vectors in the order of its trainable parameters, in their dtype.

    Half precision computes in itself and is handed over in float32.
    """

    @classmethod
    def of(cls, problem: Problem, **options: Any) -> Any:
        """The operator of a problem that is open already."""
        operator = cls.__new__(cls)
        operator._start(problem, **options)
        return operator

    @property
    def resolution(self) -> float:
        parameters = self.problem.objective.parameters.values()
        return float(max(torch.finfo(p.dtype).eps for p in parameters))

    @abc.abstractmethod
    def _start(self, problem: Problem) -> None:
        objective = problem.objective
        self.problem = problem
        self.device, self.dtype = objective.device, compute_dtype(objective.parameters.values())
        self.parameters = {name: p.shape for name, p in objective.parameters.items()}
        self.shape, self.rows_are_parameters = (objective.size, objective.size), True


class Hessian(ModelOperator):
    """H = ∇²L, the mean of the per-sample Hessians, shape (P, P), symmetric.

    The samples are drawn once and micro-batches weigh by their samples, so every product sees
    the same matrix while the parameters stay.

    Args:
        model, loss_fn, data: as for `gradient_moments`.
        hvp: "kept" (graphs of the gradient stay in memory), "fresh" (built anew for each product),
            "forward" (forward over reverse mode), "finite" (differences of gradients, for losses
            without kinks; needs no second derivatives), or "auto": kept, or finite where there
            are none.
        memory_budget: bytes of graphs kept; micro-batches that do not fit are built anew.
        max_samples: n at most; None measures all.
        seed: of the choice of samples.
        micro_batch: samples evaluated at once.

    Attributes:
        hvp, reason: the mode taken, and why.

    Raises:
        OperatorError: the vector does not fit.
        CurvatureError: the model has no second derivatives and `hvp` needs them.
        ModelError: the model was changed since.

    Example:
        >>> model = nn.Linear(2, 1, bias=False)
        >>> data = (torch.eye(2), torch.zeros(2, 1))
        >>> Hessian(model, nn.MSELoss(), data) @ torch.ones(2)  # H = 2 XᵀX/n
        tensor([1., 1.])
    """

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
    ) -> None:
        problem = Problem.open(
            model, loss_fn, data, max_samples=max_samples, seed=seed, micro_batch=micro_batch
        )
        self._start(problem, hvp, memory_budget)

    def _start(
        self, problem: Problem, hvp: str = "auto", memory_budget: int = MEMORY_BUDGET
    ) -> None:
        super()._start(problem)
        self._products, self.reason = choose_products(problem, hvp, memory_budget)
        self.hvp = self._products.name

    @property
    def resolution(self) -> float:
        exact = super().resolution
        return exact if self.hvp != "finite" else float(exact ** (2 / 3))

    @property
    def T(self) -> Hessian:
        return self

    def products(self, block: Tensor) -> Tensor:
        return self._products(block)

    def forget(self) -> None:
        """Let go of the graphs that are kept; the next product builds them anew."""
        self._products.forget()


class GaussNewton(ModelOperator):
    """The generalised Gauss-Newton matrix, the mean of J_iᵀ(∂²ℓ_i/∂z²)J_i, shape (P, P).

    z are the outputs of the model and J_i their derivatives. Positive semidefinite where the loss
    is convex in z; for exponential families with natural parameters it is the Fisher matrix
    (Schraudolph 2002; Martens 2020, arXiv:1412.1193).

    Args:
        model, loss_fn, data, memory_budget, max_samples, seed, micro_batch: as for `Hessian`.

    Raises:
        CurvatureError: the loss is no function of the outputs of `model(...)`, or second
            derivatives are cut off.
        OperatorError, ModelError: as `Hessian`.

    Example:
        >>> model = nn.Linear(2, 1, bias=False)
        >>> data = (torch.eye(2), torch.zeros(2, 1))
        >>> GaussNewton(model, nn.MSELoss(), data) @ torch.ones(2)
        tensor([1., 1.])
    """

    def __init__(
        self,
        model: nn.Module,
        loss_fn: LossFn | nn.Module,
        data: Any,
        *,
        memory_budget: int = MEMORY_BUDGET,
        max_samples: int | None = 4096,
        seed: int = 0,
        micro_batch: int = MICRO_BATCH,
    ) -> None:
        problem = Problem.open(
            model, loss_fn, data, max_samples=max_samples, seed=seed, micro_batch=micro_batch
        )
        self._start(problem, memory_budget)

    def _start(self, problem: Problem, memory_budget: int = MEMORY_BUDGET) -> None:
        super()._start(problem)
        require_second_order(problem)
        self._products: HessianProducts = ThroughGraphs(problem, GaussNewtonGraph, memory_budget)

    @property
    def T(self) -> GaussNewton:
        return self

    def products(self, block: Tensor) -> Tensor:
        return self._products(block)


class PerSampleGradients(ModelOperator):
    """J, whose rows are the per-sample gradients g_i, shape (n, P); nothing of it is stored.

    `J @ v` is g_iᵀv of every sample, from an engine's pass over the samples; `J.T @ w` is
    Σ_i w_i g_i, one weighted backward pass. First derivatives alone.

    Args:
        model, loss_fn, data, max_samples, seed, micro_batch: as for `Hessian`.
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
    ) -> None:
        problem = Problem.open(
            model, loss_fn, data, max_samples=max_samples, seed=seed, micro_batch=micro_batch
        )
        self._start(problem, engine)

    def _start(self, problem: Problem, engine: str | Engine = "auto") -> None:
        super()._start(problem)
        self.shape = problem.samples.count, problem.objective.size
        self.rows_are_parameters = False
        self._engine = _chosen(problem, engine)

    @property
    def T(self) -> Operator:
        return _Transposed(self)

    def products(self, block: Tensor) -> Tensor:
        return self.along(block).to(self.dtype)

    def along(self, block: Tensor) -> Tensor:
        """g_iᵀv for the columns v, shape (n, k), wide."""
        objective = self.problem.objective
        values = list(objective.parameters.values())
        directions = (
            dict(zip(objective.parameters, unflatten(column, values), strict=True))
            for column in block.unbind(1)
        )
        return torch.stack([slopes(self.problem, self._engine, d) for d in directions], dim=1)

    def weighted(self, weights: Tensor) -> Tensor:
        """Σ_i w_i g_i for the columns w, shape (P, k), wide."""
        return torch.stack([weighted_sum(self.problem, w) for w in weights.unbind(1)], dim=1)


def _chosen(problem: Problem, engine: str | Engine) -> Engine:
    if isinstance(engine, Engine):
        return engine
    with problem.guard():
        return choose(problem.objective, problem.largest_batch(), engine)


class _Transposed(Operator):
    """Jᵀ."""

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


class GradientCovariance(ModelOperator):
    """Σ = Σ_i (g_i - ḡ)(g_i - ḡ)ᵀ/(n - 1), shape (P, P), symmetric and positive semidefinite.

    Two passes over the samples per product, nothing stored: Σv = Jᵀc/(n - 1) with c = Jv less its
    mean, so that Σ_i c_i = 0 and ḡ drops out.

    Args:
        model, loss_fn, data, max_samples, seed, micro_batch, engine: as for `PerSampleGradients`.

    Raises:
        As `PerSampleGradients`.

    Example:
        >>> model = nn.Linear(1, 1, bias=False)
        >>> data = (torch.ones(2, 1), torch.tensor([[0.0], [1.0]]))
        >>> GradientCovariance(model, nn.MSELoss(), data) @ torch.ones(1)  # g_i = 2(w - y_i)
        tensor([2.])
    """

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
    ) -> None:
        problem = Problem.open(
            model, loss_fn, data, max_samples=max_samples, seed=seed, micro_batch=micro_batch
        )
        self._start(problem, engine)

    def _start(self, problem: Problem, engine: str | Engine = "auto") -> None:
        super()._start(problem)
        self._rows = PerSampleGradients.of(problem, engine=engine)

    @property
    def T(self) -> GradientCovariance:
        return self

    def products(self, block: Tensor) -> Tensor:
        along = self._rows.along(block)
        centred = along - along.mean(0)
        total: Tensor = self._rows.weighted(centred)
        return total.div_(self.problem.samples.count - 1).to(self.dtype)
