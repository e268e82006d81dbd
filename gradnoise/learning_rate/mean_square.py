"""The mean-square limit in a few directions whose curvature varies between samples.

With x = (w, v) in k directions, a step with batch b is x ← A_b x, and E[xxᵀ] ← E[A_b xxᵀ A_bᵀ] is a
linear map of symmetric matrices. It depends on the mean curvature M and, in proportion to
p = 1/B - 1/N, on the covariance of the samples' M_i (after Mulayoff and Michaeli 2024,
arXiv:2306.07850).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy

from .second_moments import Matrix, stability_limit, symmetric_basis
from .update_rule import Momentum

CHANGE = 0.05  # relative, of the limit by one more direction; below it none is added
Rows = tuple[tuple[float, ...], ...]  # a matrix whose copies compare equal


@dataclass(frozen=True)
class CurvatureSpread:
    """The curvature in k directions V, the sharpest first, and its spread over samples.

    Args:
        mean: VᵀHV, shape (k, k), in loss/parameter².
        covariance: Cov of the entries (i, j), i <= j, of VᵀH_iV, row by row, with 1/(n - 1), shape
            (k(k + 1)/2, k(k + 1)/2).
        converged: whether adding the last direction changed the limit little.
    """

    mean: Rows
    covariance: Rows
    converged: bool = True

    @classmethod
    def of(cls, entries: Matrix, converged: bool = True) -> CurvatureSpread:
        """From VᵀH_iV of every sample, shape (n, k, k), in loss/parameter²."""
        upper = np.triu_indices(entries.shape[1])
        rows = entries[:, upper[0], upper[1]]
        covariance = np.atleast_2d(np.cov(rows.T))
        return cls(_rows(entries.mean(0)), _rows(covariance), converged)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> CurvatureSpread:
        """From what `dataclasses.asdict` and JSON make of it; ValueError where sizes do not fit."""
        mean, covariance = (np.array(fields[name], dtype=float) for name in ("mean", "covariance"))
        k = len(mean)
        pairs = k * (k + 1) // 2
        if k == 0 or mean.shape != (k, k) or covariance.shape != (pairs, pairs):
            raise ValueError("the sizes of a curvature spread do not fit")
        return cls(_rows(mean), _rows(covariance), bool(fields["converged"]))

    def scaled(self, factor: float) -> CurvatureSpread:
        """With a spread so many times as large: that of samples from that of groups."""
        return replace(self, covariance=_rows(factor * np.array(self.covariance)))

    @property
    def directions(self) -> int:
        """k."""
        return len(self.mean)

    def stable_lr(self, factor: float, optimizer: str = "sgd", momentum: float = 0.0) -> float:
        """The largest learning rate at which second moments in these directions stay bounded.

        Without momentum it decreases with every direction that is added, and is never below
        2/λ_max(C†D), the limit in all directions: the same Rayleigh quotient over fewer matrices.

        Args:
            factor: p = 1/B - 1/N.
            optimizer, momentum: as for `gn.stable_lr`.

        Returns:
            The learning rate in parameter²/loss.
        """
        rule = Momentum.of(optimizer, momentum)
        if self.directions == 1:
            curvature = self.mean[0][0]
            noise = factor * self.covariance[0][0] / curvature**2
            return rule.stable_step(noise) / curvature
        if rule.velocity_decay == 0:  # then every optimizer is w ← w - εg
            return self._without_memory(factor)
        return self._with_memory(factor, rule)

    def reduction(self, factor: float, optimizer: str = "sgd", momentum: float = 0.0) -> float:
        """The limit in all k directions over the limit in the first alone, at most 1."""
        first = CurvatureSpread((self.mean[0][:1],), (self.covariance[0][:1],))
        alone = first.stable_lr(factor, optimizer, momentum)
        return min(self.stable_lr(factor, optimizer, momentum) / alone, 1.0)

    def is_settled(self, factor: float, optimizer: str = "sgd", momentum: float = 0.0) -> bool:
        """Whether the last direction changed the limit by less than 5 % at this factor.

        Where it did not, directions that were not measured may lower the limit much further.
        """
        if self.converged or factor == 0:
            return True
        if self.directions == 1:
            return False
        k = self.directions - 1
        kept = [n for n, (i, j) in enumerate(zip(*np.triu_indices(k + 1), strict=True)) if j < k]
        fewer = CurvatureSpread(
            _rows(np.array(self.mean)[:k, :k]), _rows(np.array(self.covariance)[np.ix_(kept, kept)])
        )
        before = fewer.stable_lr(factor, optimizer, momentum)
        return self.stable_lr(factor, optimizer, momentum) >= (1 - CHANGE) * before

    def _without_memory(self, factor: float) -> float:
        k, identity = self.directions, np.eye(self.directions)
        matrix = np.array(self.mean)
        mean = np.kron(matrix, identity) + np.kron(identity, matrix)
        square = np.kron(matrix, matrix) + factor * self._noise().reshape(k * k, k * k)
        basis = symmetric_basis(k)
        drift, spread = basis.T @ mean @ basis, basis.T @ square @ basis
        return 1 / float(scipy.linalg.eigh(spread, drift, eigvals_only=True)[-1])

    def _with_memory(self, factor: float, rule: Momentum) -> float:
        mean, noise = np.array(self.mean), factor * self._noise()
        full_batch = rule.stable_step() / float(scipy.linalg.eigvalsh(mean)[-1])
        return stability_limit(lambda lr: _radius(mean, noise, rule, lr), full_batch)

    def _noise(self) -> Matrix:
        """Cov(M_ac, M_bd) at [a, b, c, d]."""
        k = self.directions
        where = np.zeros((k, k), dtype=int)
        upper = np.triu_indices(k)
        where[upper] = where.T[upper] = np.arange(len(upper[0]))
        noise: Matrix = np.array(self.covariance)[where[:, None, :, None], where[None, :, None, :]]
        return noise


def _radius(mean: Matrix, noise: Matrix, rule: Momentum, lr: float) -> float:
    """The spectral radius of E[xxᵀ] ← E[A_b xxᵀ A_bᵀ]."""
    k, size = len(mean), 2 * len(mean)
    memory, gain = rule.linear_map(lr)
    step = np.kron(memory, np.eye(k))
    step[:, :k] += np.kron(np.array(gain)[:, None], mean)
    moments = np.einsum("ac,bd->abcd", step, step)
    spread = np.einsum("s,t,abcd->satbcd", gain, gain, noise).reshape(size, size, k, k)
    moments[:, :, :k, :k] += spread
    basis = symmetric_basis(size)
    values = np.linalg.eigvals(basis.T @ moments.reshape(size**2, size**2) @ basis)
    return float(np.abs(values).max())


def _rows(matrix: Matrix) -> Rows:
    return tuple(tuple(row) for row in matrix.tolist())
