"""Eigenvalues at the ends of a symmetric operator's spectrum, from its products alone."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from scipy.linalg import eigh_tridiagonal
from torch import Tensor

from .errors import ArgumentError, OperatorError
from .operators import Operator, as_operator
from .pergrad.forms import dots
from .probes import generator, random_vector

MEMORY_BUDGET = 2**30  # bytes of the basis
BREAKDOWN = 1e-12  # a new direction this small, relative to the spectrum, is rounding
ASYMMETRY = 1e-3  # of products, relative to the spectrum, beyond which there is no symmetry
BLOCK = 16  # rows of the basis made at a time
COLUMNS = 2**16  # entries of the basis turned at a time on a restart
WHICH = ("LA", "SA", "LM", "BE")


@dataclass(frozen=True)
class Eigenpairs:
    """Approximate eigenvalues with what bounds their error.

    Args:
        values: shape (k,), in the order asked for.
        residuals: ‖Hy - θy‖ of each; some eigenvalue lies within this distance of θ, and a Ritz
            value never exceeds the largest eigenvalue.
        vectors: orthonormal columns, shape (P, k).
        matvecs: products spent.
        converged: whether every residual is within the tolerance.
    """

    values: Tensor
    residuals: Tensor
    vectors: Tensor
    matvecs: int
    converged: bool


def lanczos(
    operator: Any,
    *,
    k: int = 1,
    which: str = "LA",
    tol: float = 1e-3,
    max_iterations: int | None = None,
    v0: Tensor | None = None,
    seed: int = 0,
    memory_budget: int = MEMORY_BUDGET,
    tick: Any = None,
) -> Eigenpairs:
    """k eigenpairs at an end of the spectrum by Lanczos with full reorthogonalisation.

    The Krylov basis Q turns H into a small T = QᵀHQ, whose eigenpairs (θ, s) give y = Qs with
    ‖Hy - θy‖ = β|s_last| (Golub and Van Loan, ch. 10). Every new vector is made orthogonal to all
    earlier ones twice. A basis that fills its budget is restarted from its best Ritz vectors
    (thick restart: Wu and Simon 2000). One Krylov space holds only one vector of a repeated
    eigenvalue, so for k > 1 further spaces orthogonal to the pairs found are searched until they
    bring nothing better, and likewise where the space of a `v0` closes. A `v0` with next to
    nothing along the wanted vector can converge to another one: its residual is honest all the
    same.

    Args:
        operator: anything symmetric of shape (P, P) with `@` on vectors: ours, a tensor, an array,
            a SciPy LinearOperator, curvlinops.
        k: number of pairs, at most P.
        which: "LA" largest algebraic, "SA" smallest algebraic, "LM" largest magnitude, "BE" from
            both ends in turn, beginning at the upper.
        tol: stop when every wanted residual is at most tol·|θ|.
        max_iterations: products at most; default max(200, 20 k).
        v0: where to start, shape (P,); default random by `seed`.
        seed: of the random directions.
        memory_budget: bytes of the basis.

    Returns:
        Eigenpairs; `converged` is False when `max_iterations` came first, and then there can be
        fewer than k.

    Raises:
        ArgumentError: k, which, tol, max_iterations or v0 out of range; a budget of fewer than
            k + 4 vectors.
        OperatorError: the operator is empty, not square or not symmetric, or a product is not
            finite.

    Example:
        >>> lanczos(torch.diag(torch.tensor([-10.0, 3.0, 1.0], dtype=torch.float64))).values
        tensor([3.0...], dtype=torch.float64)
    """
    matrix = as_operator(operator)
    size = _check(matrix, k, which, tol, max_iterations)
    limit = max_iterations or max(200, 20 * k)
    if limit < k:
        raise ArgumentError(f"`max_iterations` = {max_iterations} cannot give k = {k} pairs")
    capacity = _capacity(matrix, k, memory_budget)
    source = generator(seed)
    krylov = _Krylov(matrix, capacity, source, v0)
    pairs = _run(krylov, k, which, tol, limit, tick)
    search = k > 1 or (v0 is not None and krylov.is_closed)
    while search and pairs.converged and len(pairs.values) < size:
        # what one Krylov space cannot hold: the same eigenvalue again, directions missing in v0
        left = min(limit - pairs.matvecs, size - len(pairs.values))
        if left < 1:
            return replace(pairs, converged=False)
        deflated = _Krylov(matrix, capacity, source, None, pairs.vectors, krylov.scale)
        more = _run(deflated, 1, which, tol, left, tick)
        pairs, search = _join(pairs, more, k, which, tol)
    return pairs


def _run(krylov: _Krylov, k: int, which: str, tol: float, limit: int, tick: Any) -> Eigenpairs:
    """Up to k pairs of one Krylov space; fewer where it closes before."""
    while True:
        if krylov.is_full:
            krylov.restart(krylov.wanted(which, max(krylov.capacity // 2, k + 2)))
        krylov.extend()
        if tick is not None:
            tick(1)
        order = krylov.wanted(which, k)
        done = krylov.is_closed or (len(order) == k and krylov.is_converged(order, tol))
        if done or krylov.matvecs == limit:
            return krylov.pairs(order, done)


def _join(
    pairs: Eigenpairs, more: Eigenpairs, k: int, which: str, tol: float
) -> tuple[Eigenpairs, bool]:
    """The best k of both, and whether the second run brought something better than the first."""
    values = torch.cat([pairs.values, more.values])
    order = torch.as_tensor(_order(values.numpy(), which)[:k].copy())
    worst = pairs.values[-1]
    joined = Eigenpairs(
        values=values[order],
        residuals=torch.cat([pairs.residuals, more.residuals])[order],
        vectors=torch.cat([pairs.vectors, more.vectors], dim=1)[:, order.to(pairs.vectors.device)],
        matvecs=pairs.matvecs + more.matvecs,
        converged=pairs.converged and more.converged,
    )
    gap = float((more.values[0] - worst).abs()) > tol * float(worst.abs())
    news = len(pairs.values) < k or (len(values) - 1 in order.tolist() and gap)
    return joined, news


class _Krylov:
    """The growing basis Q and T = QᵀAQ: tridiagonal, behind a restart an arrow and a tail.

    Args:
        matrix: A.
        capacity: rows that the basis may have.
        source: of random directions.
        v0: the first direction.
        known: orthonormal columns that the space has to avoid, shape (P, k).
        scale: of the spectrum, as far as it is known.
    """

    def __init__(
        self,
        matrix: Operator,
        capacity: int,
        source: torch.Generator,
        v0: Tensor | None,
        known: Tensor | None = None,
        scale: float = 0.0,
    ) -> None:
        self.matrix, self.size, self.source, self.known = matrix, matrix.shape[0], source, known
        self.capacity = min(capacity, self.size)
        self.breakdown = max(BREAKDOWN, 8 * matrix.resolution)
        self.matvecs, self.count, self.is_closed = 0, 0, False
        self._blocks: list[Tensor] = []
        self._small = np.zeros((0, 0))
        self._arrow = 0  # Ritz vectors at the head of the basis since the last restart
        self._coupling = np.zeros(0)  # of the basis with the next direction
        self.scale = scale
        self.next = self._start(v0)

    def _start(self, v0: Tensor | None) -> Tensor:
        if v0 is None:
            fresh = torch.zeros(1)
            while float(fresh.norm()) < 1e-4:  # drawn into the space of the known: again
                drawn = random_vector(self.size, self.source, self.matrix.device)
                fresh = self._orthogonal(drawn.to(self.matrix.dtype))[0]
            return torch.div(fresh, fresh.norm())
        vector = v0.detach().to(device=self.matrix.device, dtype=self.matrix.dtype)
        norm = float(vector.norm()) if vector.shape == (self.size,) else math.nan
        if not (math.isfinite(norm) and norm > 0):
            raise ArgumentError(
                f"`v0` must be a finite, non-zero vector of length {self.size}; "
                f"got shape {tuple(v0.shape)}"
            )
        return vector / norm

    @property
    def is_full(self) -> bool:
        """Whether the basis has no row left."""
        return self.count == self.capacity

    def extend(self) -> None:
        """One product, and the next direction."""
        current = self.next
        self._append(current)
        image = self.matrix @ current
        self.matvecs += 1
        if not math.isfinite(float(image.sum())) and not torch.isfinite(image).all():
            raise OperatorError(
                f"product {self.matvecs} with the operator is not finite: look for "
                f"parameters, samples or second derivatives that overflow or divide by zero"
            )
        alpha = _dot(current, image)
        rest, overlaps = self._orthogonal(image)
        beta = math.sqrt(_dot(rest, rest))
        self.scale = max(self.scale, abs(alpha), beta)
        self._refuse_asymmetry(overlaps)
        self._grow(alpha)
        self.is_closed = beta <= self.breakdown * self.scale or self._rank == self.size
        self._coupling = np.zeros(self.count)
        self._coupling[-1] = beta
        self.next = rest / beta if beta > 0 else rest
        self.ritz = self._ritz()

    @property
    def _rank(self) -> int:
        """Dimensions that are spanned by the basis and what it avoids."""
        return self.count + (0 if self.known is None else self.known.shape[1])

    def _grow(self, alpha: float) -> None:
        grown = np.zeros((self.count, self.count))
        grown[:-1, :-1] = self._small
        grown[-1, :-1] = grown[:-1, -1] = self._coupling
        grown[-1, -1] = alpha
        self._small = grown

    def _refuse_asymmetry(self, overlaps: Tensor) -> None:
        """QᵀAq must be the row of T that is known from earlier products."""
        gap = overlaps[:-1].double().cpu().numpy() - self._coupling
        allowed = max(ASYMMETRY, 64 * self.matrix.resolution) * self.scale
        if len(gap) and float(np.abs(gap).max()) > allowed:
            raise OperatorError(
                "the operator is not symmetric: products with two vectors contradict each other"
            )

    def _append(self, vector: Tensor) -> None:
        block, row = divmod(self.count, BLOCK)
        if block == len(self._blocks):
            rows = min(BLOCK, self.capacity - self.count)
            self._blocks.append(vector.new_empty(rows, self.size))
        self._blocks[block][row] = vector
        self.count += 1

    def _rows(self) -> list[Tensor]:
        """The basis, block by block."""
        used = -(-self.count // BLOCK)
        return [block[: self.count - BLOCK * i] for i, block in enumerate(self._blocks[:used])]

    def _orthogonal(self, vector: Tensor) -> tuple[Tensor, Tensor]:
        """The part of a vector orthogonal to the basis and to what it avoids, and its overlaps."""
        first: Tensor | None = None
        for _ in range(2):
            overlaps = [rows @ vector for rows in self._rows()]
            first = torch.cat(overlaps) if first is None and overlaps else first
            for rows, overlap in zip(self._rows(), overlaps, strict=True):
                vector = vector.sub(overlap @ rows)
            if self.known is not None:
                vector = vector - self.known @ (self.known.T @ vector)
        return vector, vector.new_zeros(0) if first is None else first

    def _ritz(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Ritz values, coordinates, and residuals."""
        if self._arrow:
            values, coordinates = np.linalg.eigh(self._small)
        else:
            values, coordinates = eigh_tridiagonal(
                np.diag(self._small), np.diag(self._small, 1).copy()
            )
        self.scale = max(self.scale, float(np.abs(values).max()))
        rounding = self.matrix.resolution * self.scale
        return values, coordinates, np.abs(self._coupling @ coordinates) + rounding

    def restart(self, order: np.ndarray) -> None:
        """Keep these Ritz vectors and the next direction."""
        values, coordinates, _ = self.ritz
        turn = torch.as_tensor(coordinates[:, order].T.copy()).to(self.next)
        for start in range(0, self.size, COLUMNS):
            part = slice(start, start + COLUMNS)
            turned = turn @ torch.cat([rows[:, part] for rows in self._rows()])
            for block, own in zip(self._blocks, torch.split(turned, BLOCK), strict=False):
                block[: len(own), part] = own
        self._coupling = self._coupling @ coordinates[:, order]
        self._small = np.diag(values[order])
        self.count = self._arrow = len(order)

    def wanted(self, which: str, k: int) -> np.ndarray:
        """Positions of the wanted Ritz values, best first."""
        return _order(self.ritz[0], which)[:k]

    def is_converged(self, order: np.ndarray, tol: float) -> bool:
        values, _, residuals = self.ritz
        return bool((residuals[order] <= tol * np.abs(values[order])).all())

    def pairs(self, order: np.ndarray, converged: bool) -> Eigenpairs:
        values, coordinates, residuals = self.ritz
        weights = torch.as_tensor(coordinates[:, order].copy()).to(self.next)
        parts = torch.split(weights, [len(rows) for rows in self._rows()])
        vectors = sum(rows.T @ own for rows, own in zip(self._rows(), parts, strict=True))
        return Eigenpairs(
            values=torch.as_tensor(values[order].copy()),
            residuals=torch.as_tensor(residuals[order].copy()),
            vectors=torch.as_tensor(vectors),
            matvecs=self.matvecs,
            converged=bool(converged),
        )


def _dot(first: Tensor, second: Tensor) -> float:
    return float(dots(first[None], second[None]))


def _order(values: np.ndarray, which: str) -> np.ndarray:
    if which == "BE":
        upper = np.argsort(-values, kind="stable")
        turns = np.stack([upper, upper[::-1]], axis=1).reshape(-1)
        return turns[: len(values)]
    keys = {"LA": -values, "SA": values, "LM": -np.abs(values)}
    return np.argsort(keys[which], kind="stable")


def _capacity(matrix: Operator, k: int, memory_budget: int) -> int:
    """Rows of a basis within the budget."""
    row = matrix.shape[0] * torch.empty(0, dtype=matrix.dtype).element_size()
    rows = memory_budget // row
    least = min(k + 4, matrix.shape[0])
    if rows < least:
        raise ArgumentError(
            f"`memory_budget` = {memory_budget} bytes holds {rows} vectors of {row} bytes; "
            f"k = {k} pairs need at least {least}"
        )
    return int(rows)


def _check(matrix: Operator, k: int, which: str, tol: float, max_iterations: int | None) -> int:
    shape = tuple(matrix.shape)
    if shape[0] != shape[1] or shape[0] == 0:
        raise OperatorError(f"Lanczos needs a square operator that is not empty; got shape {shape}")
    if not 1 <= k <= shape[0]:
        raise ArgumentError(f"`k` must be from 1 to the operator's size {shape[0]}; got {k}")
    if which not in WHICH:
        raise ArgumentError(f"`which` must be one of {', '.join(WHICH)}; got {which!r}")
    if not tol > 0:
        raise ArgumentError(f"`tol` must be positive; got {tol}")
    if max_iterations is not None and max_iterations < 1:
        raise ArgumentError(f"`max_iterations` must be at least 1; got {max_iterations}")
    return int(shape[0])
