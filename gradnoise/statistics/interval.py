"""Intervals: symmetric, of skewed means, and corrected for the skewness of influences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from scipy import special

from .estimate import Estimate, Status, check_level
from .skew import Skew


def quantile(level: float, freedom: float) -> float:
    """Two-sided quantile of Student's t: 1.96 for level 0.95 and infinite degrees of freedom."""
    check_level(level)
    tail = 0.5 + level / 2
    return float(special.ndtri(tail) if math.isinf(freedom) else special.stdtrit(freedom, tail))


def pooled_freedom(*parts: tuple[float, float]) -> float:
    """Degrees of freedom of a sum of (variance, degrees of freedom): Welch and Satterthwaite."""
    total = sum(variance for variance, _ in parts)
    if not total > 0:
        return math.inf
    return 1 / sum((variance / total) ** 2 / freedom for variance, freedom in parts)


def symmetric(
    value: float, variance: float, *, level: float, samples: int, freedom: float = math.inf
) -> Estimate:
    """value ± t·s.e.; a variance of nan says that the interval was not measured."""
    if math.isnan(variance):
        bounds = (-math.inf, math.inf)
        return Estimate(value, *bounds, level, math.nan, samples, Status.NO_INTERVAL)
    stderr = math.sqrt(max(variance, 0.0))
    reach = quantile(level, freedom) * stderr
    return Estimate(value, value - reach, value + reach, level, stderr, samples)


def skewed(
    value: float, variance: float, skewness: float, *, level: float, samples: int
) -> Estimate:
    """value ± t·s.e. of a mean, reaching further on the side of the long tail.

    Of few skewed numbers the mean and the standard error are too small together, and the truth lies
    beyond the interval on the side of the tail. One term of Johnson (1978) moves the ends by
    γ(1 + 2t²)/(6√n) standard errors, γ the skewness of the distribution; only the end that moves
    outwards is moved. The skewness of few numbers is about half of that (squares of one Gaussian:
    1.3 for n = 8, 1.9 for n = 20, of 2.8), so it is taken twice.

    Args:
        value: the mean of n numbers.
        variance: of that mean.
        skewness: of the numbers.
        level: nominal coverage.
        samples: n.
    """
    plain = symmetric(value, variance, level=level, samples=samples, freedom=samples - 1)
    t = quantile(level, samples - 1)
    shift = 2 * skewness * (1 + 2 * t * t) / (6 * math.sqrt(samples)) * plain.stderr
    return replace(plain, low=plain.low + min(shift, 0.0), high=plain.high + max(shift, 0.0))


def skewness(numbers: Sequence[float]) -> float:
    """Third central moment over the cube of the standard deviation; 0 where all are equal."""
    mean = math.fsum(numbers) / len(numbers)
    widest = max(abs(x - mean) for x in numbers) or 1.0  # so that no power overflows
    gaps = [(x - mean) / widest for x in numbers]
    second, third = (math.fsum(gap**power for gap in gaps) / len(gaps) for power in (2, 3))
    return third / second**1.5 if second > 0 else 0.0


def flag_zero(estimate: Estimate, *, positive: bool = False) -> Estimate:
    """The estimate, not resolved when its interval holds zero, or lies where it cannot be."""
    holds = estimate.low <= 0 <= estimate.high or (positive and estimate.high < 0)
    if estimate.is_resolved and estimate.stderr > 0 and holds:
        return replace(estimate, status=Status.SIGNAL_BELOW_NOISE)
    return estimate


def with_skew(
    value: float,
    variance: float,
    skew: Skew,
    *,
    level: float,
    samples: int,
    freedom: float,
    part: int = 0,
) -> Estimate:
    """value ± t·s.e., further on the side of the long tail.

    Of few skewed numbers the mean and the standard error are too small together, and the truth lies
    above the interval. To first order in 1/√n, with λ₃ and λ₂₁ the two cumulants of `Skew` over
    s.e.³, T = (m - μ)/s.e. is not Gaussian but

        T + a T² + a² T³/3 + λ₃/6,   a = λ₂₁/2 - λ₃/6

    is: Johnson (1978), with the cubic term that makes it monotone by Hall (1992, J. R. Statist.
    Soc. B 54), here also for a finite population. It is inverted for both ends. A quadratic part
    moves them by half of (t² + 1) times its term over s.e.³. Skewness is itself underestimated from
    few numbers, so an end is only moved outwards: the interval holds Student's.

    Args:
        value: the estimate.
        variance: of the value, of all its sources; nan when not measured.
        skew: of the value, from those sources that are skewed.
        level: nominal coverage.
        samples: n, passed through.
        freedom: degrees of freedom of the variance.
        part: which of the estimates that `skew` knows this is.

    Example:
        >>> import torch
        >>> skew = Skew.of(torch.tensor([[0.0, 0.0, 0.0, 4.0]]))  # mean 1, s.e. 1
        >>> found = with_skew(1.0, 1.0, skew, level=0.95, samples=4, freedom=3)
        >>> print(found)
        1.00 [-2.18, 7.99]
    """
    plain = symmetric(value, variance, level=level, samples=samples, freedom=freedom)
    if not plain.stderr > 0:
        return plain
    weights = tuple(float(a == part) for a in range(len(skew.third)))
    down, up = skew.reaches(weights, plain.stderr, quantile(level, freedom))
    low, high = value - down * plain.stderr, value + up * plain.stderr
    return Estimate(value, low, high, level, plain.stderr, samples)
