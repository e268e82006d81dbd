"""The part of a matrix that a Krylov space determines: uᵀMv without further products."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..tensors.random import generator
from ..tensors.space import Space
from ..tensors.sums import exact_overlaps, without_autocast
from ..tensors.trees import widen
from .iteration import Aim, Eigenpairs, check_operator, random_start, rows_within, run
from .krylov import Krylov
from .missed_eigenvalues import furthest
from .operator import MEMORY_BUDGET, Operator

LIMIT = 200  # products at most for the eigenpair
CUT = 0.1  # of the largest Ritz value in size; smaller ones are left to the probes


class LowRank:
    """M = YᵀKY, by which uᵀMv costs no product with a matrix of the size of A.

    Args:
        space: of the vectors.
        directions: Y, orthonormal rows, shape (k, P).
        kernel: K, symmetric, shape (k, k), float64 (float32 on MPS).
    """

    def __init__(self, space: Space, directions: Tensor, kernel: Tensor) -> None:
        self.space, self.directions, self.kernel = space, directions, kernel

    def coordinates(self, vector: Tensor) -> Tensor:
        """x_u, shape (k,), float64 (float32 on MPS)."""
        return self.space.over(exact_overlaps(self.directions, vector.to(self.directions)))

    def image(self, coordinates: Tensor) -> Tensor:
        """Mu from x_u, shape (P,), float64 (float32 on MPS)."""
        return widen((self.kernel @ coordinates).to(self.directions) @ self.directions)

    def form(self, first: Tensor, second: Tensor) -> Tensor:
        """uᵀMv of coordinates in their last dimension, by the others."""
        form: Tensor = torch.linalg.vecdot(first @ self.kernel, second)
        return form


class Deflation(LowRank):
    """M = YYᵀA + AYYᵀ - YYᵀAYYᵀ for the Ritz vectors Y that are large in size.

    AY = YΘ + qcᵀ with the next direction q of the space, also after restarts. With x the
    coordinates of a vector along Y and q,

        uᵀMv = x_uᵀ K x_v,   K = [[Θ, c], [cᵀ, 0]],

    without a product. The remaining uᵀ(A - M)v has no component along Y on either side.

    Args:
        krylov: the space.
        most: Ritz vectors at most.

    Attributes:
        directions: Yᵀ and q as rows, shape (k + 1, P).
        kernel: K, shape (k + 1, k + 1), float64 (float32 on MPS).
    """

    def __init__(self, krylov: Krylov, most: int | None = None) -> None:
        values, coordinates, _ = krylov.ritz
        kept = np.flatnonzero(np.abs(values) >= CUT * np.abs(values).max())
        if most is not None and len(kept) > most:
            kept = np.sort(np.argsort(-np.abs(values), kind="stable")[:most])
        vectors = krylov.combined(coordinates[:, kept]).T
        couplings = krylov.coupling @ coordinates[:, kept]
        directions = torch.cat([vectors, krylov.next[None]])
        kernel = np.zeros((len(kept) + 1, len(kept) + 1))
        kernel[:-1, :-1] = np.diag(values[kept])
        kernel[:-1, -1] = kernel[-1, :-1] = couplings
        on_device = torch.as_tensor(kernel).to(directions.device)
        super().__init__(krylov.space, directions, widen(on_device))

    def resolvent(self, vector: Tensor, top: Tensor, value: float, least: float) -> Tensor:
        """About (λ - A)⁺x, shape (P,), for an eigenvector v of A with the largest eigenvalue λ.

        Args:
            vector: x.
            top, value: v, of length 1, and λ.
            least: λ - θ is taken for at least as much.
        """
        values, others = self.kernel.diagonal()[:-1], self.ranked[1:]  # the first stands for v
        gaps, last = (values.max() - values[others]).clamp(min=least), max(value, least)
        shares = self.coordinates(vector)[others] * (1 / gaps - 1 / last)
        found = vector / last + shares.to(vector) @ self.directions[others].to(vector)
        return found - top * self.space.inner(top, found)

    @property
    def top(self) -> Tensor:
        """The Ritz vector of the largest value, shape (P,)."""
        return self.directions[self.ranked[0]]

    @property
    def ranked(self) -> Tensor:
        """Positions of the Ritz vectors, the largest value first."""
        order: Tensor = self.kernel.diagonal()[:-1].argsort(descending=True)
        return order

    def leading(self, count: int, share: float) -> LowRank:
        """YΘYᵀ of the Ritz vectors with the largest values in size, so many of them at least.

        Others are in it as well whose values are at least this share of the largest.
        """
        values = self.kernel.diagonal()[:-1]
        sizes = values.abs()
        kept = sizes >= torch.minimum(
            share * sizes.max(), sizes.topk(min(count, len(sizes)))[0][-1]
        )
        return LowRank(self.space, self.directions[:-1][kept], values[kept].diag())


@without_autocast
def explore(
    operator: Operator,
    *,
    tol: float,
    steps: int,
    seed: int = 0,
    memory_budget: int = MEMORY_BUDGET,
    tick: Any = None,
) -> tuple[Eigenpairs, Deflation]:
    """The largest eigenpair as `lanczos` gives it, and M from its space of at least `steps`.

    Args:
        operator: a symmetric operator.
        tol, seed, memory_budget: as for `lanczos`.
        tick: called with 1 after every product.
        steps: products at least, unless the space closes before; at most 200 for the eigenpair.
    """
    check_operator(operator)
    aim = Aim(1, "LA", tol, LIMIT, tick, random=True)
    krylov = _started(operator, seed, memory_budget)
    pairs = run(krylov, aim)
    _extended(krylov, aim, steps)
    largest = aim.eigenpairs(pairs, furthest(krylov, "LA"))
    return largest, Deflation(krylov)


@without_autocast
def krylov_deflation(
    operator: Operator,
    *,
    steps: int,
    seed: int = 0,
    most: int | None = None,
    memory_budget: int = MEMORY_BUDGET,
) -> Deflation:
    """The part M of a symmetric operator from a Krylov space of `steps` products.

    Args:
        operator: symmetric.
        steps: products.
        seed: of the random start.
        most: Ritz vectors at most.
        memory_budget: bytes of the basis.
    """
    check_operator(operator)
    krylov = _started(operator, seed, memory_budget)
    return Deflation(_extended(krylov, Aim(1, "LM", 1.0, steps, None), steps), most)


def _started(operator: Operator, seed: int, memory_budget: int) -> Krylov:
    capacity = rows_within(operator, 1, memory_budget)
    return Krylov(operator, capacity, random_start(operator, generator(seed)))


def _extended(krylov: Krylov, aim: Aim, steps: int) -> Krylov:
    while not krylov.is_closed and krylov.matvecs < steps:
        aim.extend(krylov, 3)
    return krylov
