"""Eigenvectors that one Krylov space misses, because its start has no component along them.

A repeated eigenvalue appears in it once, and a start can be orthogonal to the eigenvector that is
wanted. The missed vectors are orthogonal to the whole space. A random direction orthogonal to it
has components along them, and a few products show whether any eigenvalue was missed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import scipy

from .krylov import Krylov

TINY = 1e-300  # what is divided by, where all is zero
CHANCE = 1e-3  # that an eigenvalue out of bounds is overlooked, where there is one


@dataclass(frozen=True)
class Bounds:
    """An eigenvalue below `low` or above `high` would have been wanted."""

    low: float
    high: float

    @classmethod
    def of(cls, values: np.ndarray, which: str, tol: float, zero: float) -> Bounds:
        """Beyond the worst of the values found at each end, by more than tolerance and rounding."""
        upper, lower = math.inf, -math.inf
        if which == "LA":
            upper = float(values.min())
        elif which == "SA":
            lower = float(values.max())
        elif which == "LM":
            upper = float(np.abs(values).min())
            lower = -upper
        else:
            upper = float(values[::2].min())
            lower = float(values[1::2].max(initial=-math.inf))
        return cls(lower - max(tol * abs(lower), zero), upper + max(tol * abs(upper), zero))

    def outside(self, values: np.ndarray) -> np.ndarray:
        """Positions of the values that are out of bounds."""
        return np.flatnonzero((values < self.low) | (values > self.high))

    def nothing_beyond(self, krylov: Krylov, margin: float = 0.0) -> bool:
        """Whether, with probability 1 - CHANCE, no eigenvalue is beyond the values of the start.

        The squared component s² of the start along an eigenvector with eigenvalue x is at most
        1/Σ_j p_j(x)², p_j the polynomials that are orthonormal for its spectral measure, which the
        entries of T generate (Szegő, Orthogonal Polynomials, section 3.4); beyond all Ritz values
        the sum grows. A random start in D dimensions has less than s² with a probability that is
        known: Beta(½, (D-1)/2).

        Args:
            krylov: the space of the start.
            margin: how much further out to ask, in units of each bound.
        """
        if len(self.outside(krylov.ritz[0])):
            return False
        if krylov.is_closed:
            return True
        if krylov.was_restarted:
            return False
        ends = [x + sign * margin * abs(x) for x, sign in ((self.low, -1), (self.high, 1))]
        return all(_is_empty(krylov, x) for x in ends if math.isfinite(x))


ANYTHING = Bounds(math.inf, -math.inf)


def furthest(krylov: Krylov, which: str) -> float:
    """The value beyond which, with probability 1 - CHANCE, no eigenvalue is; nan if unknown."""
    if krylov.was_restarted:
        return math.nan
    values = krylov.ritz[0]
    if which == "LM":
        return max(_edge(krylov, values[-1], 1), -_edge(krylov, values[0], -1))
    return _edge(krylov, values[0], -1) if which == "SA" else _edge(krylov, values[-1], 1)


def _edge(krylov: Krylov, end: float, sign: int) -> float:
    """The first point beyond the last Ritz value where `_is_empty` holds, plus rounding."""
    if krylov.count == krylov.dimensions:  # the whole spectrum is known
        return float(end) + sign * 8 * krylov.rounding
    near, far = 0.0, max(1e-12 * krylov.scale, 1e-300)
    while not _is_empty(krylov, end + sign * far):
        near, far = far, 2 * far
    for _ in range(40):
        middle = (near + far) / 2
        near, far = (near, middle) if _is_empty(krylov, end + sign * middle) else (middle, far)
    return float(end + sign * (far + 8 * krylov.rounding))


def _is_empty(krylov: Krylov, x: float) -> bool:
    """Whether a random start had too little of any eigenvector at x, outside all Ritz values."""
    share = float(scipy.special.betaincinv(0.5, (krylov.dimensions - 1) / 2, CHANCE))
    return sum_of_squares(krylov, x, 1 / share) >= 1 / share


def sum_of_squares(krylov: Krylov, x: float, enough: float = math.inf) -> float:
    """Σ p_j(x)² of the orthonormal polynomials that belong to T, until it is enough."""
    least = krylov.zero  # of β that is no rounding
    before, now, total, beside = 0.0, 1.0, 1.0, 0.0
    for alpha, beta in zip(krylov.diagonal, krylov.beside, strict=True):
        if not total < enough:
            return total
        before, now = now, ((x - alpha) * now - beside * before) / max(beta, least, TINY)
        beside, total = beta, total + now * now
    return total
