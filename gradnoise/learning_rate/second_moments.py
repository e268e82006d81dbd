"""Tools for the linear map that one step makes of second moments E[xxᵀ]."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

Matrix = NDArray[np.float64]


def stability_limit(radius: Callable[[float], float], high: float) -> float:
    """The learning rate at which the spectral radius of a map rises above 1, at most `high`.

    Args:
        radius: spectral radius at a learning rate; 1 at zero and below 1 right above it.
        high: where to look, in parameter²/loss.
    """

    def growth(lr: float) -> float:  # negative at zero as well: brentq needs both signs
        return radius(lr) - 1 if lr else -1.0

    if growth(high) <= 0:
        return high
    return float(optimize.brentq(growth, 0.0, high, xtol=1e-13 * high))


def symmetric_basis(size: int) -> Matrix:
    """An orthonormal basis of the symmetric matrices, as columns of their flattened entries."""
    rows, columns = np.triu_indices(size)
    basis = np.zeros((size * size, len(rows)))
    entries = np.arange(len(rows))
    basis[rows * size + columns, entries] += 1
    basis[columns * size + rows, entries] += 1
    unit: Matrix = basis / np.linalg.norm(basis, axis=0)
    return unit
