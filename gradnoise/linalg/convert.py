"""Matrices of other libraries."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import OperatorError
from ..tensors.trees import wide_dtype
from .operator import Operator


def as_operator(matrix: Any) -> Operator:
    """An operator for a tensor, an array, a SciPy LinearOperator or sparse matrix, or anything
    with `shape` and `@` on blocks of vectors (columns, k) as tensors (curvlinops). An operator
    that has only `matvec`, or that fails on a block, gets the vectors one by one.

    Raises:
        OperatorError: none of these, not a matrix, or not of real numbers.
    """
    if isinstance(matrix, Operator):
        return matrix
    shape = tuple(getattr(matrix, "shape", ()))
    if len(shape) != 2 or not (hasattr(matrix, "__matmul__") or hasattr(matrix, "matvec")):
        raise OperatorError(
            f"an operator needs `shape` (rows, columns) and `@` or `matvec` on vectors; got "
            f"{type(matrix).__name__}, got shape {shape}"
        )
    return Foreign(matrix)


class Foreign(Operator):
    """Another library's matrix."""

    def __init__(self, matrix: Any) -> None:
        self._matrix = matrix
        self.shape = int(matrix.shape[0]), int(matrix.shape[1])
        self.device = torch.device(getattr(matrix, "device", None) or "cpu")
        dtype = getattr(matrix, "dtype", None)
        if "complex" in str(dtype):
            raise OperatorError(f"a matrix of real numbers is needed; got {dtype}")
        self._is_numpy = hasattr(matrix, "dtype") and not isinstance(dtype, torch.dtype)
        self.dtype = _torch_dtype(dtype) or wide_dtype(self.device)
        if isinstance(matrix, Tensor):
            self._matrix = matrix.detach().to(self.dtype)
        self._takes_blocks = hasattr(matrix, "__matmul__")

    @property
    def T(self) -> Operator:
        transposed = self._matrix.T if hasattr(self._matrix, "T") else self._matrix.adjoint()
        return Foreign(transposed)

    def products(self, block: Tensor) -> Tensor:
        product = self._times(block) if self._takes_blocks else None
        expected = self.shape[0], block.shape[1]
        if product is None or tuple(product.shape) != expected:
            columns = [self._column(vector) for vector in block.T]
            product = torch.stack(columns, dim=1) if columns else block.new_empty(expected)
            self._takes_blocks = False  # from now on
        return product.detach().to(device=self.device, dtype=self.dtype)

    def _times(self, block: Tensor) -> Tensor | None:
        """The product with a block, or None where it fails; `_column` then shows the real error."""
        try:
            return self._tensor(self._matrix @ self._argument(block))
        except Exception:
            return None

    def _column(self, vector: Tensor) -> Tensor:
        argument, matrix = self._argument(vector.contiguous()), self._matrix
        has_at = hasattr(matrix, "__matmul__")
        product = self._tensor(matrix @ argument if has_at else matrix.matvec(argument))
        if tuple(product.shape) not in ((self.shape[0],), (self.shape[0], 1)):
            raise OperatorError(
                f"the product of {type(matrix).__name__} with a vector {tuple(vector.shape)} "
                f"must have shape {self.shape[:1]}; got {tuple(product.shape)}"
            )
        return product.reshape(-1)

    def _argument(self, vectors: Tensor) -> Any:
        return vectors.cpu().numpy() if self._is_numpy else vectors

    def _tensor(self, product: Any) -> Tensor:
        return torch.as_tensor(np.asarray(product)) if self._is_numpy else product


def _torch_dtype(dtype: Any) -> torch.dtype | None:
    if isinstance(dtype, torch.dtype):
        return dtype if dtype in (torch.float32, torch.float64) else None
    if dtype is None:
        return None
    return torch.float32 if np.dtype(dtype) == np.float32 else torch.float64
