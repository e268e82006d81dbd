"""Eigenvalues at the ends of a symmetric operator's spectrum, from its products alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
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
    to all earlier ones twice. When the Krylov space closes before k pairs are found, a fresh
    random direction goes on, which is how repeated eigenvalues are seen.

    Args:
        operator: anything symmetric with `shape` (P, P) and `@` on vectors of length P.
        k: number of pairs, at most P.
        which: "LA" largest algebraic, "SA" smallest algebraic, "LM" largest magnitude.
        tol: stop when every wanted residual is at most tol·|θ|.
        max_iterations: products at most; default min(P, max(200, 20 k)).
        v0: where to start, shape (P,); default random by `seed`.
        seed: of the random directions.

    Returns:
        Eigenpairs; `converged` is False when `max_iterations` came first.

    Raises:
        ArgumentError: k, which, tol, max_iterations or v0 out of range.
        OperatorError: the operator is empty or not square, or a product is not finite.

    Example:
        >>> lanczos(torch.diag(torch.tensor([-10.0, 3.0, 1.0]))).values
        tensor([3.0...], dtype=torch.float64)
    """
    size = _check(operator, k, which, tol, max_iterations)
    limit = min(size, max_iterations or max(200, 20 * k))
    if limit < k:
        raise ArgumentError(f"`max_iterations` = {max_iterations} cannot give k = {k} pairs")
    krylov = _Krylov(operator, size, generator(seed), v0)
    while True:
        krylov.extend()
        if tick is not None:
            tick(1)
        order = krylov.wanted(which, k)
        done = len(order) == k and krylov.is_converged(order, which, tol)
        if done or len(krylov.alphas) == limit:
            return krylov.pairs(order, done or limit == size)


class _Krylov:
    """The growing basis and its tridiagonal matrix."""

    def __init__(
        self, operator: Any, size: int, source: torch.Generator, v0: Tensor | None
    ) -> None:
        self.operator, self.size, self.source = operator, size, source
        self.device = torch.device(getattr(operator, "device", "cpu"))
        self.dtype = wide_dtype(self.device)
        self.basis = torch.empty(0, size, dtype=self.dtype, device=self.device)
        self.alphas: list[float] = []
        self.betas: list[float] = []
        self.block_start = 0  # where the Krylov space last closed
        self.next = self._start(v0)

    def _start(self, v0: Tensor | None) -> Tensor:
        if v0 is None:
            return random_vector(self.size, self.source, self.device)
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
        if beta > BREAKDOWN * scale:
            self.betas.append(beta)
            self.next = rest / beta
        else:
            self.betas.append(0.0)
            if len(self.alphas) < self.size:
                self._restart()

    def _restart(self) -> None:
        self.block_start = len(self.alphas)
        fresh = self._orthogonal(random_vector(self.size, self.source, self.device))
        self.next = fresh / fresh.norm()

    def _append(self, vector: Tensor) -> None:
        count = len(self.alphas)
        if count == len(self.basis):
            grown = torch.empty(max(16, 2 * count), self.size, dtype=self.dtype, device=self.device)
            grown[:count] = self.basis
            self.basis = grown
        self.basis[count] = vector

    def _orthogonal(self, vector: Tensor) -> Tensor:
        known = self.basis[: max(len(self.alphas), 1)]
        for _ in range(2):
            vector = vector - known.T @ (known @ vector)
        return vector

    def _ritz(self, start: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Ritz values, coordinates, and residuals of the space from `start` on."""
        alphas, betas = np.array(self.alphas[start:]), np.array(self.betas[start:])
        values, coordinates = eigh_tridiagonal(alphas, betas[:-1])
        return values, coordinates, np.abs(betas[-1] * coordinates[-1])

    def wanted(self, which: str, k: int) -> np.ndarray:
        """Positions of the wanted Ritz values, best first."""
        return _order(self._ritz()[0], which)[:k]

    def is_converged(self, order: np.ndarray, which: str, tol: float) -> bool:
        values, _, residuals = self._ritz()
        if (residuals[order] > tol * np.abs(values[order])).any():
            return False
        if self.betas[-1] == 0.0:  # closed: for one pair that is all there is to see
            return len(order) == 1 or len(self.alphas) == self.size
        if self.block_start == 0 or len(order) == 1:
            return True
        fresh, _, errors = self._ritz(self.block_start)  # has the fresh direction shown its end?
        best = _order(fresh, which)[0]
        return bool(errors[best] <= tol * np.abs(fresh[best]))

    def pairs(self, order: np.ndarray, converged: bool) -> Eigenpairs:
        values, coordinates, residuals = self._ritz()
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
