"""Copies of an eigenvector that rounding puts into a Krylov basis.

In exact arithmetic a basis holds one vector of a repeated eigenvalue. In floating point a second
one, a copy, enters once the residual r of the first is at rounding: its part in the basis is about
ε‖A‖/r (0.5 of that at most, 0.02 in the median, was measured). When the copy is nearly whole it is
a Ritz value. As long as a part is inside and the rest outside, neither the basis nor the space
orthogonal to it has the eigenvalue.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from .krylov import Krylov

ENTERING = 1e-3, 5.0  # residuals, in units of rounding, at which a part of a copy is in the basis
PART = 0.1  # of a Ritz vector in the rows left out; if it is larger, it is put in their place


def rows_without_copies(krylov: Krylov, order: np.ndarray) -> list[Tensor]:
    """Orthonormal rows that hold these Ritz vectors and little of a copy that enters."""
    values, coordinates, residuals = krylov.ritz
    low, high = (bound * krylov.rounding for bound in ENTERING)
    entering = order[(residuals[order] >= low) & (residuals[order] <= high)]
    if not len(entering):
        return krylov.rows
    kept = krylov.count - 1
    while kept > 0 and krylov.leading_residuals(kept, values[entering]).min() <= high:
        kept -= 1
    left, sizes, _ = np.linalg.svd(coordinates[kept:, order], full_matrices=False)
    turn = np.zeros((krylov.count, int((sizes > PART).sum())))
    turn[kept:] = left[:, sizes > PART]
    return [*krylov.leading_rows(kept), krylov.combined(turn).T]
