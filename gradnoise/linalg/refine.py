"""The largest eigenpair from several starts, whose products are wanted or which lie near it.

Rayleigh and Ritz in the space of the starts and of the residuals that follow (Lanczos from a space
instead of one vector). The preconditioner of Davidson (1975), from the spectrum of a part of the
samples, was tried: it saved no product on six of seven models.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import OperatorError
from ..tensors.random import generator, random_vector
from ..tensors.space import require_whole_vectors
from ..tensors.sums import exact_overlaps, overlaps, without_autocast
from ..tensors.trees import widen
from .deflation import LIMIT
from .iteration import Eigenpairs, check_operator, rows_within
from .krylov import breakdown
from .operator import MEMORY_BUDGET, Operator

KEPT = 2  # vectors that are kept when the basis is full
RANDOM = 0.3  # length of what is added to a start, relative to it
FAR, NEAR = 0.1, 0.5  # residual of a second pair that is not known yet, and what it may still gain
NEW = 0.03  # smallest share of a known vector outside the basis that is worth adding
BEGIN = 8  # rows that memory is taken for at first


class Refinement:
    """An orthonormal basis V, the products AV, and the largest Ritz pair.

    Args:
        operator: A, symmetric.
        capacity: vectors of the basis; a full one is begun anew with the best two.
    """

    def __init__(self, operator: Operator, capacity: int) -> None:
        self._operator, size = operator, operator.shape[0]
        self._capacity = max(capacity // 2, 2 * KEPT)
        rows = min(self._capacity, BEGIN)
        self._basis = torch.empty(rows, size, dtype=operator.dtype, device=operator.device)
        self._images = torch.empty_like(self._basis)
        self._small = np.zeros((0, 0))
        self.matvecs, self.scale = 0, 0.0

    @property
    def basis(self) -> Tensor:
        """Vᵀ, orthonormal rows."""
        return self._basis[: len(self._small)]

    @property
    def images(self) -> Tensor:
        """(AV)ᵀ."""
        return self._images[: len(self._small)]

    def norm(self, vector: Tensor) -> float:
        """Its length, added in float64."""
        return self._operator.space.norm(vector)

    def add(self, vectors: Sequence[Tensor]) -> int:
        """Further directions and their products, in one call; how many the basis had not yet."""
        self._make_room(len(vectors))
        first = count = len(self._small)
        for vector in vectors:
            left, _, norm, size = self._apart(vector, count)
            if norm > breakdown(self._operator.resolution) * size:
                self._basis[count] = left / norm
                count += 1
        if count == first:
            return 0
        images = self._operator @ self._basis[first:count].T
        if not math.isfinite(float(images.sum())):
            raise OperatorError(
                f"product {self.matvecs + 1} with the operator is not finite: look for "
                f"parameters, samples or second derivatives that overflow or divide by zero"
            )
        self._images[first:count] = images.T
        self.matvecs += count - first
        for image in self._images[first:count]:
            self._small = self._grown(image)
        return count - first

    def add_known(self, vector: Tensor, image: Tensor) -> int:
        """A direction whose product is known; 0 where too little of it is new."""
        self._make_room(1)
        count = len(self._small)
        left, shares, norm, size = self._apart(vector, count)
        if norm <= NEW * size:  # the product of so little would have lost its digits
            return 0
        self._basis[count] = left / norm
        self._images[count] = (image.to(left) - shares @ self._images[:count]) / norm
        self._small = self._grown(self._images[count])
        return 1

    def _apart(self, vector: Tensor, count: int) -> tuple[Tensor, Tensor, float, float]:
        """What a vector has outside of the basis, its overlaps, and the norms of both."""
        left, norm = vector, self.norm(vector)
        size, shares = norm, vector.new_zeros(count)
        for _ in range(2 if count else 0):  # once more where digits are lost, as in `Krylov`
            before, own = norm, overlaps(self._basis[:count], left)
            left, shares = left - own @ self._basis[:count], shares + own
            norm = self.norm(left)
            if norm > 0.7 * before:
                break
        return left, shares, norm, size

    def _grown(self, image: Tensor) -> np.ndarray:
        """VᵀAV with one more row."""
        count = len(self._small)
        row = exact_overlaps(self._basis[: count + 1], image).cpu().numpy()
        grown = np.zeros((count + 1, count + 1))
        grown[:-1, :-1] = self._small
        grown[-1] = grown[:, -1] = row
        self.scale = max(self.scale, float(np.abs(row).max()))
        return grown

    def _make_room(self, more: int) -> None:
        count = len(self._small)
        if count + more > self._capacity and count > KEPT:
            values, turn = np.linalg.eigh(self._small)
            best = self._weights(turn[:, -KEPT:].T)
            for rows in (self._basis, self._images):
                rows[:KEPT] = best @ rows[:count]
            self._small = np.diag(values[-KEPT:])
        elif count + more > len(self._basis):
            new = torch.empty_like(self._basis[:1]).expand(max(count, more), -1)
            self._basis = torch.cat([self._basis, new])
            self._images = torch.cat([self._images, new])

    def _weights(self, weights: np.ndarray) -> Tensor:
        return torch.as_tensor(weights.copy()).to(self._basis)

    def top(self, place: int = 0) -> tuple[float, Tensor, Tensor]:
        """The largest Ritz value ρ, its vector x, and the residual Ax - ρx; or the second."""
        values, turn = np.linalg.eigh(self._small)
        value, weights = float(values[-1 - place]), self._weights(turn[:, -1 - place])
        vector = weights @ self.basis
        return value, vector, weights @ self.images - value * vector

    def image(self, vector: Tensor) -> Tensor:
        """The product with a vector, in float64; none is taken where it lies in the basis."""
        vector = vector.to(self._basis)
        shares = overlaps(self.basis, vector)
        left = vector - shares @ self.basis
        size = self.norm(vector)
        if self.norm(left) <= 8 * breakdown(self._operator.resolution) * size:
            return widen(shares @ self.images)
        return widen(self._operator @ vector)  # the basis was begun anew since


@without_autocast
def refine(
    operator: Operator,
    starts: Sequence[Tensor],
    *,
    known: Sequence[tuple[Tensor, Tensor]] = (),
    tol: float,
    memory_budget: int = MEMORY_BUDGET,
    tick: Any = None,
) -> tuple[Eigenpairs, Refinement]:
    """The largest eigenpair of an operator, from a space of starts.

    A start with almost no component along the wanted vector may lead to another one, whose residual
    is then correct as well; see `partly_random`.

    Args:
        operator: symmetric.
        starts: vectors (P,), the best first; products with all of them are taken.
        known: further starts and their products.
        tol: residual relative to the eigenvalue.
        memory_budget: bytes of basis and products.
        tick: called with 1 after every product.

    Raises:
        OperatorError: a product is not finite, or the operator is not square.
    """
    check_operator(operator)
    require_whole_vectors(operator.space, "this search")
    space = Refinement(operator, rows_within(operator, 1, memory_budget))
    waiting = [start.to(operator.dtype) for start in starts]
    grew = sum(space.add_known(v.to(operator.dtype), image) for v, image in known)
    while True:
        asked = space.add(waiting)
        grew += asked
        if tick is not None:
            tick(asked)
        value, vector, residual = space.top()
        size, zero = space.norm(residual), operator.resolution * space.scale
        done = size <= max(tol * abs(value), breakdown(operator.resolution) * space.scale)
        rival = _rival(space, value, tol) if done and grew else None
        if (done and rival is None) or not grew or space.matvecs >= LIMIT:
            found = Eigenpairs(
                values=torch.tensor([value], dtype=torch.float64),
                residuals=torch.tensor([size + zero], dtype=torch.float64),
                vectors=vector[:, None],
                matvecs=space.matvecs,
                converged=done,
            )
            return found, space
        waiting, grew = [residual if rival is None else rival], 0


def _rival(space: Refinement, value: float, tol: float) -> Tensor | None:
    """The residual of the second Ritz pair, where that may yet become the first."""
    if len(space.basis) < 2:
        return None
    second, _, residual = space.top(1)
    size = space.norm(residual)
    unknown, ahead = size > FAR * abs(value), second + NEAR * size > value + tol * abs(value)
    return residual if unknown and ahead else None


def partly_random(start: Tensor, seed: int) -> Tensor:
    """A vector plus a part of a random one, which has a component along every eigenvector.

    What a part of the samples says is sharpest may be an eigenvector of all of them, with a
    residual of zero, that is not the largest one's.
    """
    vector = widen(start)
    other = random_vector(len(vector), generator(seed), vector.device) * (RANDOM * vector.norm())
    return vector + torch.where(vector @ other < 0, -other, other)  # never 0, also for P = 1
