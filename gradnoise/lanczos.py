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
from .probes import generator, random_vector
from .trees import wide_dtype

BREAKDOWN = 1e-12  # a new direction this small, relative to the spectrum, is rounding


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
    tick: Any = None,
) -> Eigenpairs:
    """k eigenpairs at an end of the spectrum by Lanczos with full reorthogonalisation.

    The Krylov basis Q turns H into a tridiagonal T = QᵀHQ, whose eigenpairs (θ, s) give y = Qs
    with ‖Hy - θy‖ = β|s_last| (Golub and Van Loan, ch. 10). Every new vector is made orthogonal
    to all earlier ones twice. One Krylov space holds only one vector of a repeated eigenvalue, so
    for k > 1 further spaces orthogonal to the pairs found are searched until they bring nothing
    better, and likewise where the space of a `v0` closes. A `v0` with next to nothing along the
    wanted vector can converge to another one: its residual is honest all the same.

    Args:
        operator: anything symmetric with `shape` (P, P) and `@` on vectors of length P.
        k: number of pairs, at most P.
        which: "LA" largest algebraic, "SA" smallest algebraic, "LM" largest magnitude.
        tol: stop when every wanted residual is at most tol·|θ|.
        max_iterations: products at most; default max(200, 20 k).
        v0: where to start, shape (P,); default random by `seed`.
        seed: of the random directions.

    Returns:
        Eigenpairs; `converged` is False when `max_iterations` came first, and then there can be
        fewer than k.

    Raises:
        ArgumentError: k, which, tol, max_iterations or v0 out of range.
        OperatorError: the operator is empty or not square, or a product is not finite.

    Example:
        >>> lanczos(torch.diag(torch.tensor([-10.0, 3.0, 1.0]))).values
        tensor([3.0...], dtype=torch.float64)
    """
    size = _check(operator, k, which, tol, max_iterations)
    limit = max_iterations or max(200, 20 * k)
    if limit < k:
        raise ArgumentError(f"`max_iterations` = {max_iterations} cannot give k = {k} pairs")
    source = generator(seed)
    krylov = _Krylov(operator, size, source, v0)
    pairs = _run(krylov, k, which, tol, limit, tick)
    search = k > 1 or (v0 is not None and krylov.is_closed)
    while search and pairs.converged and len(pairs.values) < size:
        # what one Krylov space cannot hold: the same eigenvalue again, directions missing in v0
        left = min(limit - pairs.matvecs, size - len(pairs.values))
        if left < 1:
            return replace(pairs, converged=False)
        deflated = _Krylov(operator, size, source, None, pairs.vectors)
        more = _run(deflated, 1, which, tol, left, tick)
        pairs, search = _join(pairs, more, k, which, tol)
    return pairs


def _run(krylov: _Krylov, k: int, which: str, tol: float, limit: int, tick: Any) -> Eigenpairs:
    """Up to k pairs of one Krylov space; fewer where it closes before."""
    while True:
        krylov.extend()
        if tick is not None:
            tick(1)
        order = krylov.wanted(which, k)
        done = krylov.is_closed or (len(order) == k and krylov.is_converged(order, tol))
        if done or len(krylov.alphas) == limit:
            return krylov.pairs(order, done)


def _join(
    pairs: Eigenpairs, more: Eigenpairs, k: int, which: str, tol: float
) -> tuple[Eigenpairs, bool]:
    """The best k of both, and whether the second run brought something better than the first."""
    values = torch.cat([pairs.values, more.values])
    order = torch.as_tensor(_order(values.numpy(), which)[:k].copy())
    worst = pairs.values[-1]
    better = _order(np.array([float(worst), float(more.values[0])]), which)[0] == 1
    gap = float((more.values[0] - worst).abs()) > tol * float(worst.abs())
    news = len(pairs.values) < k or bool(better and gap)
    joined = Eigenpairs(
        values=values[order],
        residuals=torch.cat([pairs.residuals, more.residuals])[order],
        vectors=torch.cat([pairs.vectors, more.vectors], dim=1)[:, order.to(pairs.vectors.device)],
        matvecs=pairs.matvecs + more.matvecs,
        converged=pairs.converged and more.converged,
    )
    return joined, news


class _Krylov:
    """The growing basis and its tridiagonal matrix."""

    def __init__(
        self,
        operator: Any,
        size: int,
        source: torch.Generator,
        v0: Tensor | None,
        known: Tensor | None = None,
    ) -> None:
        self.operator, self.size, self.source = operator, size, source
        self.device = torch.device(getattr(operator, "device", "cpu"))
        self.dtype = wide_dtype(self.device)
        coarse = getattr(operator, "dtype", None)
        resolution = torch.finfo(coarse).eps if isinstance(coarse, torch.dtype) else 0.0
        self.breakdown = max(BREAKDOWN, 8 * resolution)
        self.known = known  # orthonormal columns that the space has to avoid, shape (P, k)
        self.basis = torch.empty(0, size, dtype=self.dtype, device=self.device)
        self.alphas: list[float] = []
        self.betas: list[float] = []
        self.next = self._start(v0)

    def _start(self, v0: Tensor | None) -> Tensor:
        if v0 is None:
            fresh = torch.zeros(1)
            while float(fresh.norm()) < 1e-4:  # drawn into the space of the known: again
                fresh = self._orthogonal(random_vector(self.size, self.source, self.device))
            return torch.div(fresh, fresh.norm())
        vector = v0.detach().to(device=self.device, dtype=self.dtype)
        norm = float(vector.norm()) if vector.shape == (self.size,) else math.nan
        if not (math.isfinite(norm) and norm > 0):
            raise ArgumentError(
                f"`v0` must be a finite, non-zero vector of length {self.size}; "
                f"got shape {tuple(v0.shape)}"
            )
        return vector / norm

    def extend(self) -> None:
        """One product, and the next direction."""
        current = self.next
        self._append(current)
        image = (self.operator @ current.to(getattr(self.operator, "dtype", self.dtype))).to(
            device=self.device, dtype=self.dtype
        )
        if not torch.isfinite(image).all():
            raise OperatorError(
                f"product {len(self.alphas) + 1} with the operator is not finite: look for "
                f"parameters, samples or second derivatives that overflow or divide by zero"
            )
        self.alphas.append(float(current @ image))
        rest = self._orthogonal(image)
        beta = float(rest.norm())
        scale = max(map(abs, self.alphas + self.betas))
        self.is_closed = beta <= self.breakdown * scale or len(self.alphas) == self.size
        self.betas.append(beta)
        self.next = rest / beta if beta > 0 else rest
        self.ritz = self._ritz()

    def _append(self, vector: Tensor) -> None:
        count = len(self.alphas)
        if count == len(self.basis):
            grown = torch.empty(max(16, 2 * count), self.size, dtype=self.dtype, device=self.device)
            grown[:count] = self.basis
            self.basis = grown
        self.basis[count] = vector

    def _orthogonal(self, vector: Tensor) -> Tensor:
        basis = self.basis[: len(self.alphas)]
        for _ in range(2):
            vector = vector - basis.T @ (basis @ vector)
            if self.known is not None:
                vector = vector - self.known @ (self.known.T @ vector)
        return vector

    def _ritz(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Ritz values, coordinates, and residuals."""
        alphas, betas = np.array(self.alphas), np.array(self.betas)
        values, coordinates = eigh_tridiagonal(alphas, betas[:-1])
        return values, coordinates, np.abs(betas[-1] * coordinates[-1])

    def wanted(self, which: str, k: int) -> np.ndarray:
        """Positions of the wanted Ritz values, best first."""
        return _order(self.ritz[0], which)[:k]

    def is_converged(self, order: np.ndarray, tol: float) -> bool:
        values, _, residuals = self.ritz
        return bool((residuals[order] <= tol * np.abs(values[order])).all())

    def pairs(self, order: np.ndarray, converged: bool) -> Eigenpairs:
        values, coordinates, residuals = self.ritz
        weights = torch.as_tensor(
            coordinates[:, order].copy(), dtype=self.dtype, device=self.device
        )
        return Eigenpairs(
            values=torch.as_tensor(values[order].copy(), dtype=self.dtype),
            residuals=torch.as_tensor(residuals[order].copy(), dtype=self.dtype),
            vectors=self.basis[: len(self.alphas)].T @ weights,
            matvecs=len(self.alphas),
            converged=bool(converged),
        )


def _order(values: np.ndarray, which: str) -> np.ndarray:
    keys = {"LA": -values, "SA": values, "LM": -np.abs(values)}
    return np.argsort(keys[which], kind="stable")


def _check(operator: Any, k: int, which: str, tol: float, max_iterations: int | None) -> int:
    shape = tuple(operator.shape)
    if len(shape) != 2 or shape[0] != shape[1] or shape[0] == 0:
        raise OperatorError(f"Lanczos needs a square operator that is not empty; got shape {shape}")
    if not 1 <= k <= shape[0]:
        raise ArgumentError(f"`k` must be from 1 to the operator's size {shape[0]}; got {k}")
    if which not in ("LA", "SA", "LM"):
        raise ArgumentError(f'`which` must be "LA", "SA" or "LM"; got {which!r}')
    if not tol > 0:
        raise ArgumentError(f"`tol` must be positive; got {tol}")
    if max_iterations is not None and max_iterations < 1:
        raise ArgumentError(f"`max_iterations` must be at least 1; got {max_iterations}")
    return int(shape[0])
