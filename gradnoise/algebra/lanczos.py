"""Eigenvalues at the ends of a symmetric operator's spectrum, from its products alone."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import ArgumentError, OperatorError
from ..operators import MEMORY_BUDGET, Operator, as_operator
from ..probes import generator, random_vector
from .krylov import Krylov, breakdown, inner

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
    earlier ones, once more where that takes digits. A basis that fills its budget is restarted
    from its best Ritz vectors (thick restart: Wu and Simon 2000). One Krylov space holds only one
    vector of a repeated eigenvalue, so for k > 1 further spaces orthogonal to the pairs found are
    searched until they bring nothing better, and likewise where the space of a `v0` closes. A
    `v0` with next to nothing along the wanted vector can converge to another one: its residual is
    honest all the same.

    Args:
        operator: anything symmetric of shape (P, P) with `@` on vectors: ours, a tensor, an array,
            a SciPy LinearOperator, curvlinops.
        k: number of pairs, at most P.
        which: "LA" largest algebraic, "SA" smallest algebraic, "LM" largest magnitude, "BE" from
            both ends in turn, beginning at the upper.
        tol: stop when every wanted residual is at most tol·|θ|, but for the rounding of products.
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
    start = _random_start(matrix, source) if v0 is None else _given_start(matrix, v0)
    krylov = Krylov(matrix, capacity, start)
    pairs = _run(krylov, k, which, tol, limit, tick)
    search, scale = k > 1 or (v0 is not None and krylov.is_closed), krylov.scale
    del krylov  # and with it the basis
    while search and pairs.converged and len(pairs.values) < size:
        # what one Krylov space cannot hold: the same eigenvalue again, directions missing in v0
        left = min(limit - pairs.matvecs, size - len(pairs.values))
        if left < 1:
            return replace(pairs, converged=False)
        start = _random_start(matrix, source, pairs.vectors)
        # no name for it, so that no two bases are held
        more = _run(
            Krylov(matrix, capacity, start, pairs.vectors, scale), 1, which, tol, left, tick
        )
        pairs, search = _join(pairs, more, k, which, tol)
    return pairs


def _random_start(matrix: Operator, source: torch.Generator, known: Tensor | None = None) -> Tensor:
    """A random unit vector orthogonal to what is known."""
    while True:
        vector = random_vector(matrix.shape[0], source, matrix.device).to(matrix.dtype)
        if known is not None:
            for _ in range(2):
                vector = vector - known @ (known.T @ vector)
        norm = math.sqrt(inner(vector, vector))
        if norm > 1e-4:  # else drawn into the space of the known: again
            return vector / norm


def _given_start(matrix: Operator, v0: Tensor) -> Tensor:
    size = matrix.shape[0]
    vector = v0.detach().to(device=matrix.device, dtype=matrix.dtype)
    norm = math.sqrt(inner(vector, vector)) if vector.shape == (size,) else math.nan
    if not (math.isfinite(norm) and norm > 0):
        raise ArgumentError(
            f"`v0` must be a finite, non-zero vector of length {size}; got shape {tuple(v0.shape)}"
        )
    return vector / norm


def _run(krylov: Krylov, k: int, which: str, tol: float, limit: int, tick: Any) -> Eigenpairs:
    """Up to k pairs of one Krylov space; fewer where it closes before."""
    while True:
        if krylov.is_full:
            krylov.restart(_wanted(krylov, which, max(krylov.capacity // 2, k + 2)))
        krylov.extend()
        if tick is not None:
            tick(1)
        order = _wanted(krylov, which, k)
        values, coordinates, residuals = krylov.ritz
        zero = breakdown(krylov.matrix) * krylov.scale
        allowed = np.maximum(tol * np.abs(values[order]), zero)
        done = krylov.is_closed or (len(order) == k and bool((residuals[order] <= allowed).all()))
        if done or krylov.matvecs == limit:
            bounds = residuals[order] + krylov.rounding
            # products that round more coarsely than the tolerance cannot tell
            sizes = np.where(np.abs(values[order]) <= zero, np.inf, np.abs(values[order]))
            told = krylov.is_closed or bool((bounds <= 2 * tol * sizes).all())
            return Eigenpairs(
                values=torch.as_tensor(values[order].copy()),
                residuals=torch.as_tensor(bounds),
                vectors=krylov.combined(coordinates[:, order]),
                matvecs=krylov.matvecs,
                converged=done and told,
            )


def _wanted(krylov: Krylov, which: str, k: int) -> np.ndarray:
    """Positions of the wanted Ritz values, best first."""
    return _order(krylov.ritz[0], which)[:k]


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
