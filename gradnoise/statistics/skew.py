"""Skewness of estimates, and the critical values of their intervals."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Skew:
    """Third cumulants of k estimates that are means of influences.

    The mean m of n values out of N, with φ = 1/n - 1/N and K₃ their third k-statistic, has third
    cumulant φ(1/n - 2/N) K₃, and covariance φ² K₃ with the estimate of its variance. Both make
    (m - μ)/s.e. skewed; for N = ∞ they are equal.

    An estimate that is quadratic in the samples, such as |G|² = ‖ḡ‖² - φ trΣ, is skewed even where
    its influences are not: where ‖ḡ‖ is large by chance, so is its standard error. With η the
    influences and D the second-order influences (2 c_iᵀc_j for |G|²), this enters as
    φ² E[η₁η₂D₁₂] (Helmers 1991).

    Args:
        third: third joint cumulants of the estimates, shape (k, k, k).
        coupling: covariances of an estimate with an estimated covariance, shape (k, k, k).
        quadratic: φ² E[η₁η₂D₁₂], shape (k, k, k); used only in the cubic form Σ w_a w_b w_c Q_abc.

    Example:
        >>> skew = Skew.of(torch.tensor([[0.0, 0.0, 3.0]]))
        >>> float(skew.third)  # K₃ = 3/(2·1) Σ(x - 1)³ = 9, over n² = 9
        1.0
    """

    third: Tensor
    coupling: Tensor
    quadratic: Tensor

    @classmethod
    def of(cls, influences: Tensor, population: float = math.inf) -> Skew:
        """From the influence of every sample on each estimate, shape (k, n).

        Zero for fewer than three samples, which have no third k-statistic.

        Args:
            influences: shape (k, n).
            population: N.
        """
        return cls.of_some(influences, influences.shape[1], population)

    @classmethod
    def of_some(cls, influences: Tensor, samples: int, population: float = math.inf) -> Skew:
        """The same from the influences of m of the n samples, shape (k, m)."""
        m = influences.shape[1]
        gaps = (influences - influences.mean(1, keepdim=True)).cpu().double()
        moment = torch.einsum("an,bn,cn->abc", gaps, gaps, gaps)
        scale = m / ((m - 1) * (m - 2)) if m > 2 else 0.0
        return cls.from_moment(moment * scale, samples, population)

    @classmethod
    def from_moment(cls, moment: Tensor, samples: int, population: float = math.inf) -> Skew:
        """From the third k-statistics K₃, shape (k, k, k), of n samples out of N."""
        factor = 1 / samples - 1 / population
        third = factor * (1 / samples - 2 / population) * moment
        return cls(third, factor**2 * moment, torch.zeros_like(moment))

    def __add__(self, other: Skew) -> Skew:
        """The cumulants of sums of independent estimates."""
        return Skew(
            self.third + other.third,
            self.coupling + other.coupling,
            self.quadratic + other.quadratic,
        )

    def with_quadratic(self, quadratic: Tensor) -> Skew:
        """With φ² E[η₁η₂D₁₂] of a quadratic estimate added, shape (k, k, k)."""
        return replace(self, quadratic=self.quadratic + quadratic.cpu().double())

    @functools.cached_property
    def _entries(self) -> list[list[float]]:
        """All cumulants as numbers: an interval asks for hundreds of forms of few entries."""
        return [t.flatten().tolist() for t in (self.third, self.coupling, self.quadratic)]

    def _cubic_forms(self, weights: tuple[float, ...]) -> list[float]:
        """Σ_abc w_a w_b w_c K_abc of each of the three."""
        products = [a * b * c for a in weights for b in weights for c in weights]
        return [math.fsum(map(operator.mul, products, own)) for own in self._entries]

    def critical_values(
        self, weights: tuple[float, ...], stderr: float, t: float
    ) -> tuple[float, float]:
        """Distances of the lower and the upper end from Σ w_a m_a, in standard errors.

        Neither is smaller than t, nor than for a smaller t: with a large quadratic cumulant the
        formula alone would move an end inwards as t grows.

        Args:
            weights: w, one per estimate.
            stderr: standard error of Σ w_a m_a.
            t: critical value without skewness.
        """
        third, coupling, quadratic = (
            cubic / stderr / stderr / stderr if stderr > 0 else 0.0
            for cubic in self._cubic_forms(weights)
        )
        a, shift = coupling / 2 - third / 6, third / 6

        def lower(at: float) -> float:
            return _invert(at, a, shift) - quadratic * (at * at + 1) / 2

        def upper(at: float) -> float:
            return quadratic * (at * at + 1) / 2 - _invert(-at, a, shift)

        return max(t, _highest(lower, t)), max(t, _highest(upper, t))


def _highest(function: Callable[[float], float], t: float) -> float:
    """The largest value on [0, t] of a function that increases, or increases and then decreases."""
    if function(t) >= function(t * (1 - 1e-6)):
        return function(t)
    # ternary search: faster here than scipy's minimize_scalar, and as short
    low, high = 0.0, t
    for _ in range(60):
        left, right = low + (high - low) / 3, high - (high - low) / 3
        low, high = (left, high) if function(left) < function(right) else (low, right)
    return function((low + high) / 2)


def _invert(normal: float, a: float, shift: float) -> float:
    """The T that solves T + a T² + a² T³/3 + shift = normal; there is always exactly one."""
    power = 3 * a * (normal - shift)
    if abs(power) < 1e-12 or not math.isfinite(power):  # beyond 1e±100 cubes overflow
        return normal - shift if math.isfinite(shift) else normal
    if power > -0.5:
        return math.expm1(math.log1p(power) / 3) / a
    return (math.copysign(abs(1 + power) ** (1 / 3), 1 + power) - 1) / a
