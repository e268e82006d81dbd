"""A Krylov space grown until its wanted Ritz pairs are eigenpairs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import ArgumentError, OperatorError, check_whole
from .krylov import Krylov
from .missed_eigenvalues import TINY, Bounds
from .operator import MEMORY_BUDGET, Operator
from .ritz import RitzPairs

COARSE = 0.05  # relative error of products beyond which they are refused
SLACK = 2.0  # residuals in units of what is allowed, with what rounding adds
ROWS = 8  # of a basis beyond the pairs that are wanted, whatever the default budget holds
MARGIN = 0.1  # by which an eigenvalue that is called the largest is not exceeded


@dataclass(frozen=True, eq=False)
class Eigenpairs:
    """Approximate eigenvalues with what bounds their error.

    Values, residuals and `bound` are in the unit of the operator's entries, which is
    loss/parameter² for a Hessian. Source: as for `lanczos`.

    Args:
        values: shape (k,), in the order asked for.
        residuals: ‖Hy - θy‖ of each; some eigenvalue lies within this distance of θ, and a Ritz
            value never exceeds the largest eigenvalue.
        vectors: orthonormal columns, shape (P, k).
        matvecs: products spent.
        converged: whether every residual is within twice the tolerance, or at the rounding of the
            products (1e-12 of the largest |eigenvalue|; 1e-6 in float32), and, from a random
            start, no eigenvalue is beyond the first by a tenth, with probability 1 - 1e-3. False
            for a tolerance that is finer than the products.
        bound: with probability 1 - 1e-3 over the random start, no eigenvalue is beyond it at the
            end of the best value; nan where the start was given or the basis restarted.
    """

    values: Tensor
    residuals: Tensor
    vectors: Tensor
    matvecs: int
    converged: bool
    bound: float = math.nan

    def shifted(self, amount: float) -> Eigenpairs:
        """Those of A + amount times the identity."""
        return replace(self, values=self.values + amount, bound=self.bound + amount)

    def __str__(self) -> str:
        pairs = zip(self.values.tolist(), self.residuals.tolist(), strict=True)
        values = ", ".join(f"{value:.4g} (residual {rest:.1g})" for value, rest in pairs)
        end = "" if self.converged else ", not converged"
        return f"{values}, {self.matvecs} products{end}"


@dataclass(frozen=True)
class Aim:
    """The options of `lanczos`; and whether the start is random."""

    k: int
    which: str
    tol: float
    limit: int
    tick: Any
    random: bool = False

    def __post_init__(self) -> None:
        if not (isinstance(self.tol, Real) and 0 < self.tol < math.inf):
            raise ArgumentError(f"`tol` must be positive; got {self.tol!r}")

    def extend(self, krylov: Krylov, kept: int) -> None:
        """One product more; a basis that is full keeps its best half, or as many as are needed."""
        if krylov.is_full:
            krylov.restart(self.best(krylov.ritz[0], max(krylov.capacity // 2, kept)))
        krylov.extend()
        if self.tick is not None:
            self.tick(1)

    def allowed(self, values: np.ndarray, zero: float) -> np.ndarray:
        """Residuals at which these values are accepted."""
        residuals: np.ndarray = np.maximum(self.tol * np.abs(values), zero)
        return residuals

    def excess(self, pairs: RitzPairs) -> float:
        """The worst residual in units of what is accepted, 0 of none."""
        residuals, sizes, zero = pairs.residuals, np.abs(pairs.values), pairs.zero
        # products that round more coarsely than the tolerance can show only zeros
        known = (pairs.resolution <= self.tol) | (sizes <= zero)
        accepted = np.where(known, self.allowed(sizes, zero), self.tol * sizes)
        return float((residuals / np.maximum(accepted, TINY)).max(initial=0.0))

    def eigenpairs(self, pairs: RitzPairs, bound: float) -> Eigenpairs:
        """The pairs as results, with whether they converged."""
        return Eigenpairs(
            values=torch.as_tensor(pairs.values.copy()),
            residuals=torch.as_tensor(pairs.residuals),
            vectors=pairs.vectors,
            matvecs=pairs.matvecs,
            converged=pairs.done and self.excess(pairs) <= SLACK,
            bound=bound,
        )

    def is_top(self, krylov: Krylov, values: np.ndarray, zero: float) -> bool:
        """Whether none is larger by more than MARGIN, which only a random start can show."""
        if not self.random or krylov.was_restarted:
            return True
        first = values[: 2 if self.which == "BE" else 1]
        return Bounds.of(first, self.which, MARGIN, zero).nothing_beyond(krylov)

    def best(self, values: np.ndarray, count: int) -> np.ndarray:
        """Positions of the wanted values, best first."""
        return _order(values, self.which)[:count]


def run(krylov: Krylov, aim: Aim) -> RitzPairs:
    """Up to k pairs of one Krylov space; fewer where it closes before."""
    while True:
        aim.extend(krylov, aim.k + 2)
        values, _, residuals = krylov.ritz
        order = aim.best(values, aim.k)
        zero = krylov.zero
        allowed = aim.allowed(values[order], zero)
        enough = len(order) == aim.k and bool((residuals[order] <= allowed).all())
        done = krylov.is_closed or (enough and aim.is_top(krylov, values[order], zero))
        if done or krylov.matvecs == aim.limit:
            return RitzPairs.of(krylov, order, done)


def _order(values: np.ndarray, which: str) -> np.ndarray:
    if which == "BE":
        upper = np.argsort(-values, kind="stable")
        turns = np.stack([upper, upper[::-1]], axis=1).reshape(-1)
        return turns[: len(values)]
    keys = {"LA": -values, "SA": values, "LM": -np.abs(values)}
    return np.argsort(keys[which], kind="stable")


def random_start(matrix: Operator, source: torch.Generator, known: Sequence[Tensor] = ()) -> Tensor:
    """A random unit vector orthogonal to the rows of what is known."""
    space = matrix.space
    while True:
        vector = space.random(source).to(matrix.dtype)
        for rows in [*known, *known]:
            vector = vector - space.overlaps(rows, vector) @ rows
        norm = space.norm(vector)
        if norm > 1e-4:  # else drawn into the space of the known: again
            return vector / norm


def rows_within(matrix: Operator, k: int, memory_budget: int) -> int:
    """Rows of a basis within the budget; the default one, or more, holds k + 8 in any case."""
    row = matrix.space.largest_local_size * torch.empty(0, dtype=matrix.dtype).element_size()
    check_whole("memory_budget", memory_budget, 1)
    rows = memory_budget // row
    if memory_budget >= MEMORY_BUDGET:
        rows = max(rows, k + ROWS)
    least = min(k + 4, matrix.shape[0])
    if rows < least:
        raise ArgumentError(
            f"`memory_budget` = {memory_budget} bytes holds {rows} vectors of {row} bytes; "
            f"k = {k} pairs need at least {least}"
        )
    return int(rows)


def check_operator(matrix: Operator) -> None:
    """Raise OperatorError unless eigenvalues can be computed from the operator's products."""
    shape = tuple(matrix.shape)
    if shape[0] != shape[1] or shape[0] == 0:
        raise OperatorError(f"Lanczos needs a square operator that is not empty; got shape {shape}")
    if matrix.resolution > COARSE:
        raise OperatorError(uncertain(matrix.resolution))


def uncertain(error: float) -> str:
    """What is said of products that are this far off, relative, and what to do."""
    return (
        f"products with the operator are uncertain by {error:.0%}: differences of gradients "
        f"(hvp='finite', gather='layers') are wrong for models with kinks (ReLU, max pooling), or "
        f"where a part computes in a lower precision; use another `hvp`, and gather='model' if the "
        f"model is sharded"
    )
