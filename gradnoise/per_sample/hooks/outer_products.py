"""Gradients in two factors: outer products, summed over positions."""

from __future__ import annotations

import abc
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ...tensors.sums import dots, sq_norms
from ...tensors.trees import widen
from .factored import CANCELLED, NOTHING, Asked, FactoredGradients, Measured


class OuterProducts(FactoredGradients):
    """g_i = Σ_t left_it ⊗ right_it over T positions, in each of `groups` blocks of rows."""

    @property
    @abc.abstractmethod
    def left(self) -> Tensor:
        """Shape (n, groups, T, p)."""

    @property
    @abc.abstractmethod
    def right(self) -> Tensor:
        """Shape (n, groups, T, q)."""

    def kind(self) -> Any:
        return OuterProducts, self.left.shape[1::2]

    def join(self, terms: Sequence[OuterProducts]) -> FactoredGradients:
        left, right = (
            torch.cat(sides, 2) for sides in zip(*((t.left, t.right) for t in terms), strict=True)
        )
        return SummedOuterProducts(left, right, self.shape)

    def gradients(self, part: slice) -> Tensor:
        blocks = self.left[part].transpose(2, 3) @ self.right[part]
        return blocks.reshape(len(blocks), *self.shape)

    def some(self, rows: slice) -> FactoredGradients:
        return SummedOuterProducts(self.left[rows], self.right[rows], self.shape)

    def _total(self) -> Tensor:
        if self.left.shape[1] == 1:
            p, q = self.left.shape[3], self.right.shape[3]
            product = self.left.reshape(-1, p).T @ self.right.reshape(-1, q)
            return product.reshape(self.shape)
        left, right = (t.transpose(0, 1).flatten(1, 2) for t in (self.left, self.right))
        return (left.transpose(1, 2) @ right).reshape(self.shape)

    def measure(self, asked: Asked = NOTHING) -> Measured:
        positions = self.left.shape[2]
        entries = (
            asked.squares or asked.scale is not None
        )  # of single samples: products for one position
        if (entries and positions > 1) or not self._multiplies(asked.total):
            return self._written_out(asked)
        return Measured(
            self._total() if asked.total else None,
            self._sq_norms(asked.mend) if asked.scale is None else self._scaled(asked.scale),
            asked.dots(self._dots),
            self._squares() if asked.squares else None,
        )

    def inner(self, other: FactoredGradients) -> Tensor | None:
        return self._gram(other) if isinstance(other, OuterProducts) else None

    def _gram(self, other: OuterProducts) -> Tensor:
        """⟨g_i, g'_i⟩: Gram matrices multiplied entry by entry."""
        return dots(*self._products(other))

    def _products(self, other: OuterProducts) -> tuple[Tensor, Tensor]:
        """Gram matrices of both factors."""
        pairs = (self.left, other.left), (self.right, other.right)
        left, right = (own @ others.transpose(2, 3) for own, others in pairs)
        return left, right

    def _sq_norms(self, mend: bool) -> Tensor:
        """‖g_i‖²; samples whose positions cancel lose all their digits in Gram products."""
        if self.left.shape[2] == 1:
            sides = [sq_norms(side.flatten(0, 1)) for side in (self.left, self.right)]
            return (sides[0] * sides[1]).reshape(self.count, -1).sum(1)
        left, right = self._products(self)
        norms = dots(left, right)
        parts = dots(left.diagonal(dim1=2, dim2=3), right.diagonal(dim1=2, dim2=3))
        kept = norms >= CANCELLED * parts
        if not mend:
            return norms.where(kept, math.nan)
        for index in (~kept).nonzero().flatten().tolist():
            norms[index] = sq_norms(self.gradients(slice(index, index + 1)))[0]
        return norms

    def method(self) -> tuple[str, str]:
        positions, p, q = self._sizes()
        if positions == 1:
            return "product of norms", f"one position: {p} + {q} numbers for {p} × {q}"
        how = f"{positions} positions of {p} + {q} numbers for {p} × {q}"
        return ("Gram matrices" if self._multiplies() else "written out"), how

    def extra_cost(self) -> float:
        positions, p, q = self._sizes()
        if not self._multiplies():
            return super().extra_cost()
        return 2.0 * self.left.shape[1] * (p + q) * positions**2

    def batch_cost(self) -> float:
        return 2.0 * math.prod(self._sizes()) * self.left.shape[1]

    def _sizes(self) -> tuple[int, int, int]:
        return self.left.shape[2], self.left.shape[3], self.right.shape[3]

    def _multiplies(self, total: bool = True) -> bool:
        """Whether Gram matrices cost less than gradients written out, which give the sum as well.

        In operations they are T(p + q) against pq; measured, they are worth it below half of
        that, and below four fifths where no sum is wanted.
        """
        positions, p, q = self._sizes()
        return positions == 1 or positions * (p + q) <= (0.5 if total else 0.8) * p * q

    def _dots(self, direction: Tensor) -> Tensor:
        groups, (positions, p, q) = self.left.shape[1], self._sizes()
        along = direction.to(self.left.dtype).reshape(groups, p, q)
        if groups == 1:  # one product of matrices, not one for each sample
            images = self.left.reshape(-1, p) @ along[0]
            return dots(images.reshape(-1, positions * q), self.right)
        return dots(self.left @ along, self.right)

    def _scaled(self, scale: Tensor) -> Tensor:
        """‖scale ⊙ g_i‖² for one position: the squares of the factors against the scale's."""
        groups, (_, p, q) = self.left.shape[1], self._sizes()
        weights = scale.to(self.left.dtype).square().reshape(groups, p, q)
        left, right = (t[:, :, 0].square().transpose(0, 1) for t in (self.left, self.right))
        return dots((left @ weights).transpose(0, 1), right.transpose(0, 1))

    def _squares(self) -> Tensor:
        left, right = (widen(t[:, :, 0]).square().transpose(0, 1) for t in (self.left, self.right))
        return (left.transpose(1, 2) @ right).reshape(self.shape)


class SummedOuterProducts(OuterProducts):
    """Outer products summed over any number of positions.

    Args:
        left: shape (n, groups, T, p).
        right: shape (n, groups, T, q).
        shape: of the tensor, (groups·p·q entries).
    """

    def __init__(self, left: Tensor, right: Tensor, shape: torch.Size) -> None:
        self._left, self._right, self.shape = left, right, shape
        self.count = len(left)

    @property
    def left(self) -> Tensor:
        return self._left

    @property
    def right(self) -> Tensor:
        return self._right


class SingleOuterProduct(OuterProducts):
    """g_i = left_i ⊗ right_i: one position, where the norm is a product of two.

    Args:
        left: shape (n, p).
        right: shape (n, q).
        shape: of the tensor, (p·q entries).
        left_sq: ‖left_i‖², for whom others need them as well.
    """

    def __init__(
        self,
        left: Tensor,
        right: Tensor,
        shape: torch.Size,
        left_sq: Callable[[], Tensor] | None = None,
    ) -> None:
        self._sides, self.shape, self.count = (left, right), shape, left.shape[0]
        self._left_sq = left_sq or functools.partial(sq_norms, left)

    @property
    def left(self) -> Tensor:
        return self._sides[0][:, None, None]

    @property
    def right(self) -> Tensor:
        return self._sides[1][:, None, None]

    def some(self, rows: slice) -> FactoredGradients:
        left, right = (side[rows] for side in self._sides)
        return SingleOuterProduct(left, right, self.shape)

    def _total(self) -> Tensor:
        left, right = self._sides
        return (left.t() @ right).reshape(self.shape)

    def measure(self, asked: Asked = NOTHING) -> Measured:
        _, right = self._sides
        return Measured(
            self._total() if asked.total else None,
            self._left_sq() * sq_norms(right) if asked.scale is None else self._scaled(asked.scale),
            asked.dots(self._dots),
            self._squares() if asked.squares else None,
        )
