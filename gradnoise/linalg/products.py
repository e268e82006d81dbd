"""Blocks of products with any operator: counted, checked to be finite, in float64."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ..errors import ArgumentError, OperatorError, check_whole
from ..tensors.space import require_whole_vectors
from ..tensors.trees import wide_dtype
from .convert import as_operator

PRODUCTS = 64  # at most, where none are asked for


class Products:
    """Products with a square operator, returned in float64 (float32 on MPS).

    The vectors go to the operator in its dtype; each product has a rounding error of `resolution`
    relative to ‖A‖.

    Args:
        operator: anything with `shape` (P, P) and `@`, as for `lanczos`.

    Raises:
        OperatorError: not square, or empty; or ranks hold parts of its vectors.
    """

    def __init__(self, operator: Any) -> None:
        self.operator = as_operator(operator)
        require_whole_vectors(self.operator.space, "this estimator")
        self.size, self.count = self.operator.shape[0], 0
        if self.operator.shape[0] != self.operator.shape[1] or not self.size:
            raise OperatorError(
                f"a square operator that is not empty is needed; got shape {self.operator.shape}"
            )
        self.device, self.dtype = self.operator.device, wide_dtype(self.operator.device)
        self.resolution = max(self.operator.resolution, torch.finfo(self.dtype).eps)

    def __call__(self, block: Tensor) -> Tensor:
        """A times a block of vectors, shape (P, k)."""
        images: Tensor = (self.operator @ block).to(self.dtype)
        finite = torch.isfinite(images).all(dim=0)
        if not finite.all():
            first = self.count + int((~finite).nonzero()[0]) + 1
            raise OperatorError(
                f"product {first} with the operator is not finite: look for parameters, samples "
                f"or second derivatives that overflow or divide by zero"
            )
        self.count += block.shape[1]
        return images

    def fitting(self, block: Tensor) -> Tensor:
        """The block rounded to the dtype of the operator."""
        return block.to(device=self.device, dtype=self.operator.dtype).to(self.dtype)

    def dense(self) -> Tensor:
        """The whole matrix, by P products."""
        return self(torch.eye(self.size, dtype=self.dtype, device=self.device))

    def rounding(self, norm: float, images: Tensor | None = None) -> float:
        """The rounding error of a sum over P entries, ‖A‖√P times the resolution.

        Vectors that are orthonormal up to ε add ε times the sum of the lengths of their images:
        these errors have one sign where A is definite, and add up.
        """
        basis = 0.0 if images is None else float(images.norm(dim=0).sum())
        return self.resolution * norm * math.sqrt(self.size) + torch.finfo(self.dtype).eps * basis


def default_products(known: Products, least: int, held: float, memory_budget: int) -> int:
    """How many products are spent where none are asked for: 64, or as many as the budget holds.

    Where it does not hold `least` of them, `products_within` says what it would need.
    """
    return max(least, min(PRODUCTS, int(memory_budget / _bytes_of(known, held))))


def products_within(
    known: Products, asked: int | None, least: int, held: float, memory_budget: int
) -> int:
    """How many products are spent; where these are P or more, they give the whole matrix.

    Args:
        known: the operator.
        asked: the most that may be spent; None for `default_products`.
        least: products that the estimator needs.
        held: vectors of length P that it holds for each product.
        memory_budget: bytes for them.

    Raises:
        ArgumentError: the products do not give the matrix, and are fewer than the estimator needs;
            or they are more than the budget holds.
    """
    check_whole("memory_budget", memory_budget, 1)
    products = default_products(known, least, held, memory_budget) if asked is None else asked
    check_whole("products", products, 1)
    if products < min(least, known.size):
        raise ArgumentError(
            f"`products` must be at least {least} for an interval of this estimator, or the "
            f"operator's size {known.size} for the exact answer; got {products}"
        )
    each = _bytes_of(known, held)
    fitting, needed = int(memory_budget / each), min(products, known.size)
    if needed > fitting:
        remedy = f"ask for at most {fitting}" if fitting >= least else f"{least} are the fewest"
        raise ArgumentError(
            f"`memory_budget` = {memory_budget} bytes holds {fitting} products of {each:.0f} "
            f"bytes each; got `products` = {products}: {remedy}, or raise the budget"
        )
    return products


def _bytes_of(known: Products, held: float) -> float:
    return held * known.size * torch.finfo(known.dtype).bits / 8
