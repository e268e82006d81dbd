"""The Krylov space of a symmetric operator: its basis, and the operator on it."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np
import scipy
import torch
from torch import Tensor

from ..errors import OperatorError
from ..tensors.sums import COLUMNS, dots, exact_overlaps
from ..tensors.trees import floats, widen
from .operator import Operator

BREAKDOWN = 1e-12  # a new direction this small, relative to the spectrum, is rounding
ASYMMETRY = 1e-3  # of products, relative to the spectrum, beyond which there is no symmetry
BLOCK = 16  # rows of the basis made at a time


class Krylov:
    """The growing basis Q and T = QᵀAQ: tridiagonal, after a restart an arrow and a tail.

    Args:
        matrix: A.
        capacity: rows that the basis may have.
        start: the first direction, of norm 1 and orthogonal to `known`.
        known: orthonormal rows that the space is orthogonal to, in blocks of shape (k, P).
        scale: of the spectrum, as far as it is known.
    """

    def __init__(
        self,
        matrix: Operator,
        capacity: int,
        start: Tensor,
        known: Sequence[Tensor] = (),
        scale: float = 0.0,
    ) -> None:
        self.matrix, self.space, self.known = matrix, matrix.space, known
        self.size = self.space.size
        self.capacity = min(capacity, self.size)
        self.matvecs, self.count, self.is_closed = 0, 0, False
        self._blocks: list[Tensor] = []
        self._small = np.zeros((0, 0))
        self._arrow = 0  # Ritz vectors at the head of the basis since the last restart
        self.coupling = np.zeros(0)  # of the basis with the next direction
        self.scale = scale
        self.next = start.to(matrix.dtype)

    @property
    def is_full(self) -> bool:
        """Whether the basis has no row left."""
        return self.count == self.capacity

    @property
    def zero(self) -> float:
        """Size below which everything is rounding."""
        return breakdown(self.matrix.resolution) * self.scale

    @property
    def room(self) -> int:
        """Rows that the basis has left."""
        return self.capacity - self.count

    def extend(self) -> None:
        """One product, and the next direction."""
        self.next = current = self._append(self.next)
        image = self.matrix @ current
        self.matvecs += 1
        sums = torch.stack([widen(image.sum()), dots(current[None], image[None])[0]])
        total, alpha, largest = floats([*self.space.over(sums), self.space.largest(image)])
        if not math.isfinite(total) and not self.space.is_finite(image):
            raise OperatorError(
                f"product {self.matvecs} with the operator is not finite: look for "
                f"parameters, samples or second derivatives that overflow or divide by zero"
            )
        rest = self._less_known(image, alpha)
        beta = self.space.norm(rest)
        self.scale = max(self.scale, abs(alpha), beta)
        self._refuse_extremes(largest, image.dtype)
        rest, beta = self._orthogonal(rest, beta)
        self._grow(alpha)
        self.is_closed = (
            beta <= breakdown(self.matrix.resolution) * self.scale or self.count == self.dimensions
        )
        self.coupling = np.zeros(self.count)
        self.coupling[-1] = beta
        self.next = rest / beta if beta > 0 else rest
        self.__dict__.pop("ritz", None)

    @property
    def dimensions(self) -> int:
        """The dimension of the space orthogonal to the vectors that have to be avoided."""
        return self.size - sum(len(rows) for rows in self.known)

    @property
    def was_restarted(self) -> bool:
        """Whether T is no longer tridiagonal."""
        return self._arrow > 0

    def _grow(self, alpha: float) -> None:
        grown = np.zeros((self.count, self.count))
        grown[:-1, :-1] = self._small
        grown[-1, :-1] = grown[:-1, -1] = self.coupling
        grown[-1, -1] = alpha
        self._small = grown

    def _less_known(self, image: Tensor, alpha: float) -> Tensor:
        """A product without the part that the row of T says it has."""
        row = np.append(self.coupling, alpha)
        if np.count_nonzero(row) > 2:  # the arrow behind a restart
            return image - self.combined(row[:, None])[:, 0]
        for index in np.flatnonzero(row):
            block, place = divmod(int(index), BLOCK)
            image = image.sub(self._blocks[block][place], alpha=float(row[index]))
        return image

    def _orthogonal(self, vector: Tensor, norm: float) -> tuple[Tensor, float]:
        """Orthogonal to the basis and to what it avoids; once more where digits were lost.

        Twice is enough (Parlett, The Symmetric Eigenvalue Problem, section 6.9). What is left of
        a product has next to nothing in the basis, if the operator is symmetric.
        """
        for again in range(3):
            before, blocks = norm, [*self.rows, *self.known]
            sums = torch.cat([exact_overlaps(rows, vector) for rows in blocks])
            found = self.space.over(sums).to(vector)
            if not again:
                self._refuse_asymmetry(float(found[: self.count].abs().max()))
            for rows, overlap in zip(blocks, torch.split(found, [*map(len, blocks)]), strict=True):
                vector = vector.sub(overlap @ rows)
            norm = self.space.norm(vector)
            if norm > 0.7 * before:
                break
        return vector, norm

    def _refuse_extremes(self, largest: float, dtype: torch.dtype) -> None:
        """Squares must neither overflow nor vanish."""
        limits = torch.finfo(dtype)
        vanished = largest > 0 and self.scale < 1e3 * limits.tiny**0.5
        if vanished or largest > 1e-3 * limits.max**0.5:
            raise OperatorError(
                f"products of size {largest:.0e} have no squares in {dtype}: scale the "
                f"operator, for instance 1e6 * A or 1e-6 * A"
            )

    def _refuse_asymmetry(self, gap: float) -> None:
        if gap > max(ASYMMETRY, 64 * self.matrix.resolution) * self.scale:
            raise OperatorError(
                "the operator is not symmetric: products with two vectors contradict each other. "
                "Causes are random losses, half precision, or differences of gradients "
                "(hvp='finite') of a model with kinks (ReLU, max pooling)"
            )

    def _append(self, vector: Tensor) -> Tensor:
        """The new row, which holds a copy of the vector."""
        block, row = divmod(self.count, BLOCK)
        if block == len(self._blocks):
            rows = min(BLOCK, self.capacity - self.count)
            self._blocks.append(vector.new_empty(rows, self.space.local_size))
        self._blocks[block][row] = vector
        self.count += 1
        return self._blocks[block][row]

    @property
    def rows(self) -> list[Tensor]:
        """The basis, block by block."""
        return self.leading_rows(self.count)

    @property
    def rounding(self) -> float:
        """The part of every residual that rounding of the products leaves unknown."""
        return self.matrix.resolution * self.scale

    @functools.cached_property
    def ritz(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Ritz values, coordinates by column, and residuals without rounding errors."""
        if self._arrow:
            values, coordinates = np.linalg.eigh(self._small)
        else:
            values, coordinates = scipy.linalg.eigh_tridiagonal(
                np.diag(self._small), np.diag(self._small, 1).copy()
            )
        self.scale = max(self.scale, float(np.abs(values).max()))
        return values, coordinates, np.abs(self.coupling @ coordinates)

    def leading_residuals(self, rows: int, values: np.ndarray) -> np.ndarray:
        """Of the Ritz pairs of the first rows alone that are closest to these values."""
        own, coordinates = np.linalg.eigh(self._small[:rows, :rows])
        closest = np.abs(own[:, None] - values).argmin(0)
        residuals: np.ndarray = np.abs(self._small[rows, :rows] @ coordinates[:, closest])
        return residuals

    def leading_rows(self, count: int) -> list[Tensor]:
        """The first rows of the basis, block by block."""
        blocks = enumerate(self._blocks[: -(-count // BLOCK)])
        return [block[: count - BLOCK * i] for i, block in blocks]

    def restart(self, order: np.ndarray) -> None:
        """Keep these Ritz vectors and the next direction."""
        values, coordinates, _ = self.ritz
        turn = torch.as_tensor(coordinates[:, order].T.copy()).to(self.next)
        for start in range(0, self.space.local_size, COLUMNS):
            part = slice(start, start + COLUMNS)
            turned = turn @ torch.cat([rows[:, part] for rows in self.rows])
            for block, own in zip(self._blocks, _split(turned), strict=False):
                block[: len(own), part] = own
        self.coupling = self.coupling @ coordinates[:, order]
        self._small = np.diag(values[order])
        self.count = self._arrow = len(order)
        self.__dict__.pop("ritz", None)

    def combined(self, coordinates: np.ndarray) -> Tensor:
        """The vectors of these coordinates (columns) in the basis, shape (P, k)."""
        weights = torch.as_tensor(coordinates.copy()).to(self.next)
        total = self.next.new_zeros(weights.shape[1], self.space.local_size)
        for rows, own in zip(self.rows, _split(weights), strict=True):
            total.addmm_(own.T, rows)
        return total.T

    @property
    def diagonal(self) -> np.ndarray:
        """α of a basis that was not restarted."""
        diagonal: np.ndarray = np.diag(self._small).copy()
        return diagonal

    @property
    def beside(self) -> np.ndarray:
        """β of a basis that was not restarted; the last one leads to the next direction."""
        beside: np.ndarray = np.append(np.diag(self._small, 1), self.coupling[-1:])
        return beside


def breakdown(resolution: float) -> float:
    """Size below which numbers are only rounding, relative to the spectrum."""
    return max(BREAKDOWN, 8 * resolution)


def _split(rows: Tensor) -> list[Tensor]:
    """By the blocks of the basis."""
    return list(torch.split(rows, BLOCK))
