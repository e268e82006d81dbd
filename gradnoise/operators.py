"""The bridge from a model to linear algebra: matrices that are never formed.

An operator has `shape`, `dtype`, `device`, `.T` and `@`; everything that works on operators sees
no more than that. Vectors are flat, in the order of the model's trainable parameters.
"""

from __future__ import annotations

import abc
from typing import Any

import torch
from torch import Tensor, nn

from .directional import hessian_product, require_second_order, slopes, weighted_sum
from .errors import OperatorError
from .losses import LossFn
from .problem import Problem
from .trees import wide_dtype


class Operator(abc.ABC):
    """A matrix known by its products."""

    shape: tuple[int, int]
    dtype: torch.dtype
    device: torch.device

    @property
    @abc.abstractmethod
    def T(self) -> Operator:
        """The transpose."""

    @abc.abstractmethod
    def product(self, vector: Tensor) -> Tensor:
        """The matrix times one vector."""

    def __matmul__(self, other: Tensor) -> Tensor:
        """The matrix times a vector (columns,) or a block of vectors (columns, k)."""
        if not isinstance(other, Tensor) or other.ndim not in (1, 2):
            got = tuple(other.shape) if isinstance(other, Tensor) else type(other).__name__
            raise OperatorError(f"`@` takes a vector or a block of vectors; got {got}")
        if other.shape[0] != self.shape[1]:
            raise OperatorError(
                f"an operator of shape {self.shape} takes vectors of length {self.shape[1]}; "
                f"got {other.shape[0]}"
            )
        other = other.to(device=self.device, dtype=self.dtype)
        if other.ndim == 1:
            return self.product(other)
        return torch.stack([self.product(column) for column in other.unbind(1)], dim=1)


class _ModelOperator(Operator):
    """An operator of a model on fixed samples."""

    def __init__(
        self,
        model: nn.Module,
        loss_fn: LossFn | nn.Module,
        data: Any,
        *,
        max_samples: int | None = 4096,
        seed: int = 0,
    ) -> None:
        problem = Problem.open(model, loss_fn, data, max_samples=max_samples, seed=seed)
        require_second_order(problem)
        self._start(problem)

    @classmethod
    def of(cls, problem: Problem) -> Any:
        """The operator of a problem that is already open."""
        operator = cls.__new__(cls)
        operator._start(problem)
        return operator

    def _start(self, problem: Problem) -> None:
        self.problem = problem
        self.device = problem.objective.device
        self.dtype = wide_dtype(self.device)
        self.shape = self._rows(problem), problem.objective.size

    @abc.abstractmethod
    def _rows(self, problem: Problem) -> int: ...


class Hessian(_ModelOperator):
    """H = ∇²L, the mean of the per-sample Hessians, shape (P, P), symmetric.

    Products are by double backward over the micro-batches, each weighted by its samples. The
    samples are drawn once, so every product sees the same matrix while the parameters stay.

    Args:
        model, loss_fn, data: as for `gradient_moments`.
        max_samples: n at most; None measures all.
        seed: of the choice of samples.

    Raises:
        OperatorError: the vector does not fit.
        CurvatureError: the model has no second derivatives.
        ModelError: the model was changed since.

    Example:
        >>> model = nn.Linear(2, 1, bias=False)
        >>> data = (torch.eye(2), torch.zeros(2, 1))
        >>> Hessian(model, nn.MSELoss(), data) @ torch.ones(2)  # H = 2 XᵀX/n
        tensor([1., 1.], dtype=torch.float64)
    """

    def _rows(self, problem: Problem) -> int:
        return problem.objective.size

    @property
    def T(self) -> Hessian:
        return self

    def product(self, vector: Tensor) -> Tensor:
        return hessian_product(self.problem, vector)


class PerSampleGradients(_ModelOperator):
    """J, whose rows are the per-sample gradients g_i, shape (n, P); nothing of it is stored.

    `J @ v` is g_iᵀv of every sample, by double backward; `J.T @ w` is Σ_i w_i g_i, one weighted
    backward pass.

    Args:
        model, loss_fn, data: as for `gradient_moments`.
        max_samples: n at most; None measures all.
        seed: of the choice of samples.

    Raises:
        OperatorError: the vector does not fit.
        CurvatureError: the model has no second derivatives.
        ModelError: the model was changed since.

    Example:
        >>> model = nn.Linear(1, 1, bias=False)
        >>> data = (torch.ones(2, 1), torch.tensor([[0.0], [1.0]]))
        >>> gradients = PerSampleGradients(model, nn.MSELoss(), data)
        >>> round(float(gradients.T @ torch.tensor([1.0, -1.0])), 5)  # 2w - 2(w - 1)
        2.0
    """

    def _rows(self, problem: Problem) -> int:
        return problem.samples.count

    @property
    def T(self) -> Operator:
        return _Transposed(self)

    def product(self, vector: Tensor) -> Tensor:
        return slopes(self.problem, vector)


class _Transposed(Operator):
    """Jᵀ."""

    def __init__(self, rows: PerSampleGradients) -> None:
        self._rows = rows
        self.shape = (rows.shape[1], rows.shape[0])
        self.dtype, self.device = rows.dtype, rows.device

    @property
    def T(self) -> PerSampleGradients:
        return self._rows

    def product(self, vector: Tensor) -> Tensor:
        return weighted_sum(self._rows.problem, vector)
