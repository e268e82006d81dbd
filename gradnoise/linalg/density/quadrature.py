"""Gauss rules of the spectral measure of an operator and a start vector."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray
from torch import Tensor

from ..convert import as_operator
from ..krylov import Krylov

Array = NDArray[np.float64]
CLOSED = 1e-11  # what rounding, amplified, leaves of a last β of 0, relative to the spectrum


@dataclass(frozen=True, eq=False)
class GaussRule:
    """The Gauss quadrature rule of the measure that puts (vᵀu_i)² on each eigenvalue λ_i.

    k steps of Lanczos from v give a tridiagonal matrix T; its eigenvalues θ are the nodes and the
    squared first entries of its eigenvectors the weights. Σ_j τ_j f(θ_j) is vᵀf(A)v for every
    polynomial f of degree at most 2k - 1 (Golub and Meurant, Matrices, Moments and Quadrature,
    2010, ch. 6), and for every f when the Krylov space is invariant (closed).

    Args:
        alphas: diagonal of T, shape (k,).
        betas: beside the diagonal, shape (k,); the last one leads to the vector k + 1.
        is_closed: whether the space holds every eigenvalue whose eigenspace v is not orthogonal to.
    """

    alphas: Array
    betas: Array
    is_closed: bool

    @cached_property
    def _eigen(self) -> tuple[Array, Array]:
        values, coordinates = scipy.linalg.eigh_tridiagonal(self.alphas, self.betas[:-1])
        return values, coordinates

    @property
    def nodes(self) -> Array:
        """θ, ascending, shape (k,)."""
        return self._eigen[0]

    @property
    def weights(self) -> Array:
        """τ, positive with sum 1, shape (k,)."""
        weights: Array = self._eigen[1][0] ** 2
        return weights

    def shortened(self, steps: int) -> GaussRule:
        """The rule after fewer steps; the rule itself where it is closed."""
        if self.is_closed or steps >= len(self.alphas):
            return self
        return GaussRule(self.alphas[:steps], self.betas[:steps], False)

    def share_below(self, x: float) -> tuple[float, float]:
        """Least and greatest weight below x of any measure with the same 2k + 1 moments.

        The bounds of Chebyshev, Markov and Stieltjes: the Gauss-Radau rule with a node at x,
        without and with the weight of that node. Its matrix is T and one row more, whose diagonal
        entry is x + β_k² Σ_j s_kj²/(θ_j - x) (Golub and Meurant, section 6.2).
        """
        if self.is_closed:
            share = float(self.weights[self.nodes < x].sum())
            return share, share
        nodes, coordinates = self._eigen
        gaps = np.where(nodes == x, np.finfo(float).eps * (abs(x) or 1.0), nodes - x)
        last = x + float(self.betas[-1] ** 2 * (coordinates[-1] ** 2 / gaps).sum())
        values, vectors = scipy.linalg.eigh_tridiagonal(np.append(self.alphas, last), self.betas)
        fixed = int(np.abs(values - x).argmin())
        weights = vectors[0] ** 2
        return float(weights[:fixed].sum()), float(weights[: fixed + 1].sum())


def gauss_rule(operator: Any, start: Tensor, steps: int) -> GaussRule:
    """The Gauss rule of `start` after at most `steps` products, with full reorthogonalisation.

    Args:
        operator: symmetric, shape (P, P), as for `lanczos`.
        start: v, of norm 1, shape (P,).
        steps: products at most; fewer where the Krylov space closes.

    Raises:
        OperatorError: a product is not finite, or the operator not symmetric.
    """
    krylov = Krylov(as_operator(operator), steps, start)
    closed = False
    while not (krylov.is_full or closed):
        krylov.extend()
        closed = krylov.is_closed or bool(krylov.coupling[-1] <= CLOSED * krylov.scale)
    return GaussRule(krylov.diagonal, krylov.beside, closed)
