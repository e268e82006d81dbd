"""Matrices of other libraries."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import OperatorError
from ..trees import wide_dtype
from .base import Operator


def as_operator(matrix: Any) -> Operator:
    """An operator for a tensor, an array, a SciPy LinearOperator or sparse matrix, or anything
    with `shape` and `@` on blocks of vectors (columns, k) as tensors (curvlinops).

    Raises:
        OperatorError: none of these, not a matrix, or not of real numbers.
    """
    if isinstance(matrix, Operator):
        return matrix
    if len(tuple(getattr(matrix, "shape", ()))) != 2 or not hasattr(matrix, "__matmul__"):
        raise OperatorError(
            f"an operator needs `shape` (rows, columns) and `@` on vectors; got "
            f"{type(matrix).__name__}, got shape {tuple(getattr(matrix, 'shape', ()))}"
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

    @property
    def T(self) -> Operator:
        transposed = self._matrix.T if hasattr(self._matrix, "T") else self._matrix.adjoint()
        return Foreign(transposed)

    def products(self, block: Tensor) -> Tensor:
        if self._is_numpy:
            product = torch.as_tensor(np.asarray(self._matrix @ block.cpu().numpy()))
        else:
            product = self._matrix @ block
        expected = self.shape[0], block.shape[1]
        if tuple(product.shape) != expected:
            raise OperatorError(
                f"the product of {type(self._matrix).__name__} with vectors {tuple(block.shape)} "
                f"must have shape {expected}; got {tuple(product.shape)}"
            )
        return product.detach().to(device=self.device, dtype=self.dtype)


def _torch_dtype(dtype: Any) -> torch.dtype | None:
    if isinstance(dtype, torch.dtype):
        return dtype if dtype in (torch.float32, torch.float64) else None
    if dtype is None:
        return None
    return torch.float32 if np.dtype(dtype) == np.float32 else torch.float64
