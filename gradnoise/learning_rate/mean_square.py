"""The step that second moments bear in a few directions whose curvature varies between samples.

Of x = (w, v) in k directions a step with batch b is x ← A_b x, and E[xxᵀ] ← E[A_b xxᵀ A_bᵀ] is a
linear map of symmetric matrices. It holds the mean curvature M twice and, in proportion to
p = 1/B - 1/N, the covariance of the samples' M_i (after Mulayoff and Michaeli 2024,
arXiv:2306.07850).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, optimize

from .update_rule import Momentum

Matrix = NDArray[np.float64]
Rows = tuple[tuple[float, ...], ...]  # a matrix whose copies compare equal


@dataclass(frozen=True)
class CurvatureSpread:
    """The curvature in k directions V, the sharpest first, and its spread over samples.

    Args:
        mean: VᵀHV, shape (k, k).
        covariance: Cov of the entries (i, j), i <= j, of VᵀH_iV, row by row, with 1/(n - 1), shape
            (k(k + 1)/2, k(k + 1)/2).
        converged: whether one direction more changes little.
    """

    mean: Rows
    covariance: Rows
    converged: bool = True

    @classmethod
    def of(cls, entries: Matrix, converged: bool = True) -> CurvatureSpread:
        """From VᵀH_iV of every sample, shape (n, k, k)."""
        upper = np.triu_indices(entries.shape[1])
        rows = entries[:, upper[0], upper[1]]
        covariance = np.atleast_2d(np.cov(rows.T))
        return cls(_rows(entries.mean(0)), _rows(covariance), converged)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> CurvatureSpread:
        """From what `dataclasses.asdict` and JSON make of it."""
        mean, covariance = (_rows(np.array(fields[name])) for name in ("mean", "covariance"))
        return cls(mean, covariance, bool(fields["converged"]))

    @property
    def directions(self) -> int:
        """k."""
        return len(self.mean)

    def stable_lr(self, share: float, optimizer: str = "sgd", momentum: float = 0.0) -> float:
        """The largest learning rate at which second moments in these directions stay bounded.

        Without momentum it falls with every direction that is added, and is never below the limit
        of all: 2/λ_max(C†D), the Rayleigh quotient of which it takes on fewer matrices.

        Args:
            share: p = 1/B - 1/N.
            optimizer, momentum: as for `gn.stable_lr`.
        """
        rule = Momentum.of(optimizer, momentum)
        if self.directions == 1:
            curvature = self.mean[0][0]
            noise = share * self.covariance[0][0] / curvature**2
            return rule.stable_step(noise) / curvature
        if rule.keep == 0:
            return self._without_memory(share) / (rule.direct + rule.follow * rule.take)
        return self._with_memory(share, rule)

    def reduction(self, share: float, optimizer: str = "sgd", momentum: float = 0.0) -> float:
        """What the other directions take off: the limit of all over that of the first alone."""
        first = CurvatureSpread((self.mean[0][:1],), (self.covariance[0][:1],))
        alone = first.stable_lr(share, optimizer, momentum)
        return min(self.stable_lr(share, optimizer, momentum) / alone, 1.0)

    def _without_memory(self, share: float) -> float:
        k, identity = self.directions, np.eye(self.directions)
        matrix = np.array(self.mean)
        mean = np.kron(matrix, identity) + np.kron(identity, matrix)
        square = np.kron(matrix, matrix) + share * self._noise().reshape(k * k, k * k)
        basis = symmetric_basis(k)
        drift, spread = basis.T @ mean @ basis, basis.T @ square @ basis
        return 1 / float(linalg.eigh(spread, drift, eigvals_only=True)[-1])

    def _with_memory(self, share: float, rule: Momentum) -> float:
        mean, noise = np.array(self.mean), share * self._noise()
        full_batch = rule.stable_step() / float(linalg.eigvalsh(mean)[-1])
        return stability_limit(lambda lr: _radius(mean, noise, rule, lr), full_batch)

    def _noise(self) -> Matrix:
        """Cov(M_ac, M_bd) at [a, b, c, d]."""
        k = self.directions
        where = np.zeros((k, k), dtype=int)
        upper = np.triu_indices(k)
        where[upper] = where.T[upper] = np.arange(len(upper[0]))
        found: Matrix = np.array(self.covariance)[where[:, None, :, None], where[None, :, None, :]]
        return found


def _radius(mean: Matrix, noise: Matrix, rule: Momentum, lr: float) -> float:
    """The spectral radius of E[xxᵀ] ← E[A_b xxᵀ A_bᵀ]."""
    k, identity = len(mean), np.eye(len(mean))
    pull = np.array([-lr * (rule.direct + rule.follow * rule.take), rule.take])  # of Mw on w and v
    step = np.kron([[1.0, -lr * rule.follow * rule.keep], [0.0, rule.keep]], identity)
    step[:, :k] += np.kron(pull[:, None], mean)
    size = 2 * k
    moments = np.einsum("ac,bd->abcd", step, step)
    spread = np.einsum("s,t,abcd->satbcd", pull, pull, noise).reshape(size, size, k, k)
    moments[:, :, :k, :k] += spread
    basis = symmetric_basis(size)
    values = np.linalg.eigvals(basis.T @ moments.reshape(size**2, size**2) @ basis)
    return float(np.abs(values).max())


def stability_limit(radius: Callable[[float], float], high: float) -> float:
    """The learning rate, at most `high`, where a spectral radius rises above 1."""

    def growth(lr: float) -> float:  # no step has the radius 1, the smallest step less
        return radius(lr) - 1 if lr else -1.0

    if growth(high) <= 0:
        return high
    return float(optimize.brentq(growth, 0.0, high, xtol=1e-13 * high))


def _rows(matrix: Matrix) -> Rows:
    return tuple(tuple(row) for row in matrix.tolist())


def symmetric_basis(size: int) -> Matrix:
    """An orthonormal basis of the symmetric matrices, as columns of their flattened entries."""
    rows, columns = np.triu_indices(size)
    basis = np.zeros((size * size, len(rows)))
    entries = np.arange(len(rows))
    basis[rows * size + columns, entries] += 1
    basis[columns * size + rows, entries] += 1
    unit: Matrix = basis / np.linalg.norm(basis, axis=0)
    return unit
