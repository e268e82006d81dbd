"""A density on a grid."""

from __future__ import annotations

from dataclasses import dataclass

from .quadrature import Array


@dataclass(frozen=True, eq=False)
class Curve:
    """A spectral density broadened by Gaussians, with its pointwise band.

    Grid and width are in the unit of the eigenvalues (loss/parameter² for a Hessian), the density
    in its inverse. Source: as for `SpectralDensity`.

    Args:
        grid: eigenvalues, shape (m,).
        density: (1/P) Σ_i N(x; λ_i, width²), area 1, shape (m,).
        low, high: ends of the interval at each point, shape (m,).
        quadrature_error: the part of the half-width of the band that more steps would remove,
            shape (m,).
        width: standard deviation of the Gaussians.
    """

    grid: Array
    density: Array
    low: Array
    high: Array
    quadrature_error: Array
    width: float
