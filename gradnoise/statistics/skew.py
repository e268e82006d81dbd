"""Skewness of estimates, and how far their intervals reach on the side of the long tail."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Skew:
    """Third cumulants of k estimates that are means of influences.

    The mean m of n values out of N, with φ = 1/n - 1/N and K₃ their third k-statistic, has third
    cumulant φ(1/n - 2/N) K₃, and covariance φ² K₃ with the estimate of its own variance. Both
    bend the distribution of (m - μ)/s.e.; for N = ∞ they are equal.

    An estimate that is quadratic in the samples, such as |G|² = ‖ḡ‖² - φ trΣ, leans even where its
    influences do not: where ḡ is long by chance, so is its standard error. With η the influences
    and D the second-order ones (2 c_iᵀc_j for |G|²), this enters as φ² E[η₁η₂D₁₂] (Helmers 1991).

    Args:
        third: third joint cumulants of the estimates, shape (k, k, k).
        coupling: covariances of an estimate with an estimated covariance, shape (k, k, k).
        quadratic: φ² E[η₁η₂D₁₂], shape (k, k, k); only its form Σ w_aw_bw_c in it matters.

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

        Fewer than three samples show no skewness.
        """
        n = influences.shape[1]
        gaps = (influences - influences.mean(1, keepdim=True)).cpu().double()
        moment = torch.einsum("an,bn,cn->abc", gaps, gaps, gaps)
        scale = n / ((n - 1) * (n - 2)) if n > 2 else 0.0
        return cls.from_moment(moment * scale, n, population)

    @classmethod
    def from_moment(cls, moment: Tensor, samples: int, population: float = math.inf) -> Skew:
        """From K₃ itself, shape (k, k, k)."""
        factor = 1 / samples - 1 / population
        third = factor * (1 / samples - 2 / population) * moment
        return cls(third, factor**2 * moment, torch.zeros_like(moment))

    def __add__(self, other: Skew) -> Skew:
        """Of sums of independent parts."""
        return Skew(
            self.third + other.third,
            self.coupling + other.coupling,
            self.quadratic + other.quadratic,
        )

    def bent(self, quadratic: Tensor) -> Skew:
        """With the skewness of a quadratic part."""
        return replace(self, quadratic=self.quadratic + quadratic.cpu().double())

    def reaches(self, weights: tuple[float, ...], stderr: float, t: float) -> tuple[float, float]:
        """How far to go down and up from Σ w_a m_a, in standard errors: never less than t.

        Nor less than for a smaller t: a strong quadratic part would draw an end back in as t grows.
        """
        w = torch.tensor(weights, dtype=torch.float64)
        third, coupling, quadratic = (
            float(cumulant @ w @ w @ w) / stderr / stderr / stderr if stderr > 0 else 0.0
            for cumulant in (self.third, self.coupling, self.quadratic)
        )
        bend, shift = coupling / 2 - third / 6, third / 6

        def down(at: float) -> float:
            return _straight(at, bend, shift) - quadratic * (at * at + 1) / 2

        def up(at: float) -> float:
            return quadratic * (at * at + 1) / 2 - _straight(-at, bend, shift)

        return max(t, _highest(down, t)), max(t, _highest(up, t))


def _highest(reach: Callable[[float], float], t: float) -> float:
    """The largest value on [0, t] of a function that rises, or rises and then falls."""
    if reach(t) >= reach(t * (1 - 1e-6)):
        return reach(t)
    low, high = 0.0, t
    for _ in range(60):
        left, right = low + (high - low) / 3, high - (high - low) / 3
        low, high = (left, high) if reach(left) < reach(right) else (low, right)
    return reach((low + high) / 2)


def _straight(normal: float, bend: float, shift: float) -> float:
    """The T at which T + bend T² + bend² T³/3 + shift is `normal`; it always exists."""
    power = 3 * bend * (normal - shift)
    if abs(power) < 1e-12 or not math.isfinite(power):  # beyond 1e±100 cubes overflow
        return normal - shift if math.isfinite(shift) else normal
    if power > -0.5:
        return math.expm1(math.log1p(power) / 3) / bend
    return (math.copysign(abs(1 + power) ** (1 / 3), 1 + power) - 1) / bend
