"""Linear maps of second moments: their spectral radius, and a basis of symmetric matrices."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy
from numpy.typing import NDArray

Matrix = NDArray[np.float64]


def stability_limit(radius: Callable[[float], float], high: float) -> float:
    """The learning rate, at most `high`, where a spectral radius rises above 1."""

    def growth(lr: float) -> float:  # the radius is 1 at lr = 0, and below 1 right above it
        return radius(lr) - 1 if lr else -1.0

    if growth(high) <= 0:
        return high
    return float(scipy.optimize.brentq(growth, 0.0, high, xtol=1e-13 * high))


def symmetric_basis(size: int) -> Matrix:
    """An orthonormal basis of the symmetric matrices, as columns of their flattened entries."""
    rows, columns = np.triu_indices(size)
    basis = np.zeros((size * size, len(rows)))
    entries = np.arange(len(rows))
    basis[rows * size + columns, entries] += 1
    basis[columns * size + rows, entries] += 1
    unit: Matrix = basis / np.linalg.norm(basis, axis=0)
    return unit
