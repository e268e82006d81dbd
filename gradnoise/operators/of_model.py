"""The common base of the matrices of a model on fixed samples."""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..linalg.operator import Operator
from ..problem.problem import Problem
from ..tensors.space import Space
from ..tensors.trees import compute_dtype


class ModelOperator(Operator):
    """A matrix of a model: vectors in the order of its trainable parameters, in their dtype.

    Models in half precision compute in half precision; vectors and products are float32.
    """

    @classmethod
    def of(cls, problem: Problem, **options: Any) -> Any:
        """The operator of a problem that is already open."""
        operator = cls.__new__(cls)
        operator._start(problem, **options)
        return operator

    @property
    def resolution(self) -> float:
        parameters = self.problem.objective.parameters.values()
        return float(max(torch.finfo(p.dtype).eps for p in parameters))

    @property
    def space(self) -> Space:
        return self.problem.objective.space

    def _around(self, products: Callable[[Tensor], Tensor], block: Tensor) -> Tensor:
        """Products in the coordinates z = P^½w of the problem, from those in its parameters w."""
        preconditioner = self.problem.objective.preconditioner
        return products(block) if preconditioner is None else preconditioner.around(products, block)

    @abc.abstractmethod
    def _start(self, problem: Problem) -> None:
        objective = problem.objective
        self.problem = problem
        self.device, self.dtype = objective.device, compute_dtype(objective.parameters.values())
        self.parameters = {name: p.shape for name, p in objective.parameters.items()}
        self.shape, self.rows_are_parameters = (objective.size, objective.size), True
