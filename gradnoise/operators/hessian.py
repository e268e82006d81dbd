"""The Hessian of the mean loss, and its Gauss-Newton part."""

from __future__ import annotations

import abc
from typing import Any

from torch import Tensor, nn

from ..errors import ArgumentError
from ..linalg.operator import MEMORY_BUDGET
from ..problem.directional import require_second_order
from ..problem.losses import LossFn
from ..problem.options import Options
from ..problem.problem import Problem
from ..problem.samples import MICRO_BATCH
from .graph_cache import GaussNewtonGraph
from .of_model import ModelOperator
from .products import HessianProducts, ThroughGraphs, choose_products


class _Curvature(ModelOperator):
    """Symmetric, by products that are means over the samples."""

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
    ) -> None:
        options = Options(max_samples=max_samples, seed=seed, micro_batch=micro_batch)
        problem = Problem.open(model, loss_fn, data, options)
        self._start(problem, hvp, memory_budget)

    @abc.abstractmethod
    def _start(
        self, problem: Problem, hvp: str = "auto", memory_budget: int = MEMORY_BUDGET
    ) -> None:
        super()._start(problem)

    @property
    def T(self) -> ModelOperator:
        return self

    def products(self, block: Tensor) -> Tensor:
        return self._around(self._products, block)

    def forget(self) -> None:
        """Let go of the graphs that are kept; the next product builds them anew."""
        self._products.forget()


class Hessian(_Curvature):
    """H = ∇²L, the mean of the per-sample Hessians, shape (P, P), symmetric.

    The samples are drawn once and micro-batches weigh by their samples, so every product sees
    the same matrix while the parameters stay. Parameters and buffers that changed are noticed by
    value; attributes of the model and what a loss_fn closes over are not: call `.forget()` then.
    An autocast around the call is left for the products.

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
        >>> import torch
        >>> model = nn.Linear(2, 1, bias=False)
        >>> data = (torch.eye(2), torch.zeros(2, 1))
        >>> Hessian(model, nn.MSELoss(), data) @ torch.ones(2)  # H = 2 XᵀX/n
        tensor([1., 1.])
    """

    def _start(
        self, problem: Problem, hvp: str = "auto", memory_budget: int = MEMORY_BUDGET
    ) -> None:
        super()._start(problem)
        self._products, self.reason = choose_products(problem.plain, hvp, memory_budget)
        self.hvp = self._products.name

    @property
    def resolution(self) -> float:
        own = self._products.resolution
        return super().resolution if own is None else own


class GaussNewton(_Curvature):
    """The generalised Gauss-Newton matrix, the mean of J_iᵀ(∂²ℓ_i/∂z²)J_i, shape (P, P).

    z are the outputs of the model and J_i their derivatives. Positive semidefinite where the loss
    is convex in z; for exponential families with natural parameters it is the Fisher matrix
    (Schraudolph 2002; Martens 2020, arXiv:1412.1193).

    Args:
        model, loss_fn, data, memory_budget, max_samples, seed, micro_batch: as for `Hessian`.
        hvp: "kept", "fresh", or "auto": kept.

    Attributes:
        hvp, reason: the mode taken, and why.

    Raises:
        ArgumentError: another `hvp`.
        CurvatureError: the loss is no function of the outputs of `model(...)`, or second
            derivatives are cut off.
        OperatorError, ModelError: as `Hessian`.

    Example:
        >>> import torch
        >>> model = nn.Linear(2, 1, bias=False)
        >>> data = (torch.eye(2), torch.zeros(2, 1))
        >>> GaussNewton(model, nn.MSELoss(), data) @ torch.ones(2)
        tensor([1., 1.])
    """

    def _start(
        self, problem: Problem, hvp: str = "auto", memory_budget: int = MEMORY_BUDGET
    ) -> None:
        if hvp not in ("auto", "kept", "fresh"):
            raise ArgumentError(
                f"the Gauss-Newton matrix knows no `hvp` {hvp!r}: auto, kept or fresh"
            )
        super()._start(problem)
        plain = problem.plain
        require_second_order(plain)
        budget = 0 if hvp == "fresh" else memory_budget
        self._products = ThroughGraphs(plain, GaussNewtonGraph, budget)
        self.hvp = self._products.name
        self.reason = "as asked for" if hvp != "auto" else "the graph of the outputs is kept"
