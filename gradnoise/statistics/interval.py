"""Confidence intervals: Student's, and two that are corrected for skewness."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from .estimate import Estimate, Status
from .quantile import quantile
from .skew import Skew


def pooled_freedom(*parts: tuple[float, float]) -> float:
    """Degrees of freedom of a sum of independent variances, each with its own: (Σv)²/Σ(v²/ν).

    Welch and Satterthwaite; ∞ where all variances are zero.

    Args:
        parts: (variance, degrees of freedom) of every term.
    """
    total = sum(variance for variance, _ in parts)
    if not total > 0:
        return math.inf
    return 1 / sum((variance / total) ** 2 / freedom for variance, freedom in parts)


def symmetric(
    value: float, variance: float, *, level: float, samples: int, freedom: float = math.inf
) -> Estimate:
    """value ± t·s.e., Student's interval; without one where the variance is nan.

    Args:
        value: the estimate.
        variance: of the value; nan when it was not measured.
        level: nominal coverage.
        samples: n, stored in the estimate.
        freedom: degrees of freedom of the variance.
    """
    if math.isnan(variance):
        bounds = (-math.inf, math.inf)
        return Estimate(value, *bounds, level, math.nan, samples, Status.NO_INTERVAL)
    stderr = math.sqrt(max(variance, 0.0))
    margin = quantile(level, freedom) * stderr
    return Estimate(value, value - margin, value + margin, level, stderr, samples)


def skewed(
    value: float, variance: float, skewness: float, *, level: float, samples: int
) -> Estimate:
    """Interval of a mean of skewed numbers: Student's, longer on the side of the long tail.

    In small samples of a skewed distribution the mean and its standard error are correlated, and
    Student's interval misses the truth mostly on the side of the tail. The first-order correction
    of Johnson (1978) moves both ends by γ(1 + 2t²)/(6√n) standard errors, γ the skewness of the
    distribution. Here only the end that moves outwards is moved. The sample skewness of few numbers
    is about half of γ (squares of a Gaussian, γ = 2.8: 1.3 for n = 8, 1.9 for n = 20), so it is
    doubled.

    Args:
        value: the mean of n numbers.
        variance: of that mean.
        skewness: of the numbers.
        level: nominal coverage.
        samples: n.
    """
    student = symmetric(value, variance, level=level, samples=samples, freedom=samples - 1)
    t = quantile(level, samples - 1)
    shift = 2 * skewness * (1 + 2 * t * t) / (6 * math.sqrt(samples)) * student.stderr
    low, high = student.low + min(shift, 0.0), student.high + max(shift, 0.0)
    return replace(student, low=low, high=high)


def skewness(numbers: Sequence[float]) -> float:
    """Sample skewness m₃/m₂^(3/2) from central moments with 1/n; 0 where all numbers are equal."""
    mean = math.fsum(numbers) / len(numbers)
    largest = max(abs(x - mean) for x in numbers) or 1.0  # so that no power overflows
    gaps = [(x - mean) / largest for x in numbers]
    second, third = (math.fsum(gap**power for gap in gaps) / len(gaps) for power in (2, 3))
    return third / second**1.5 if second > 0 else 0.0


def flag_zero(estimate: Estimate, *, positive: bool = False) -> Estimate:
    """The estimate, flagged as "signal below noise" where its interval contains zero.

    Args:
        estimate: any; only a resolved one with a standard error is flagged.
        positive: whether the quantity cannot be negative; then an interval below zero is flagged
            as well.
    """
    lost = estimate.low <= 0 <= estimate.high or (positive and estimate.high < 0)
    if estimate.is_resolved and estimate.stderr > 0 and lost:
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
    """Skewness-corrected interval: Student's, longer on the side of the long tail.

    In small samples of a skewed distribution an estimate m of μ and its standard error are
    correlated. With λ₃ and λ₂₁ the cumulants `third` and `coupling` of `Skew` over s.e.³, to first
    order in 1/√n not T = (m - μ)/s.e. is Gaussian, but

        T + a T² + a² T³/3 + λ₃/6,   a = λ₂₁/2 - λ₃/6

    (Johnson 1978; the cubic term, which makes it monotone, is Hall's 1992, J. R. Statist. Soc. B
    54; here also for a finite population). It is inverted for both ends. The cumulant `quadratic`
    moves them by another (t² + 1)/2 times its value over s.e.³. Few numbers underestimate the
    skewness, so an end is only moved outwards: the interval contains Student's.

    Args:
        value: the estimate.
        variance: of the value, of all its sources; nan when not measured.
        skew: of the value, from those sources that are skewed.
        level: nominal coverage.
        samples: n, stored in the estimate.
        freedom: degrees of freedom of the variance.
        part: index of this estimate among those of `skew`.

    Example:
        >>> import torch
        >>> skew = Skew.of(torch.tensor([[0.0, 0.0, 0.0, 4.0]]))  # mean 1, s.e. 1
        >>> print(with_skew(1.0, 1.0, skew, level=0.95, samples=4, freedom=3))
        1.00 [-2.18, 7.99]
    """
    student = symmetric(value, variance, level=level, samples=samples, freedom=freedom)
    if not student.stderr > 0:
        return student
    weights = tuple(float(a == part) for a in range(len(skew.third)))
    down, up = skew.critical_values(weights, student.stderr, quantile(level, freedom))
    return replace(student, low=value - down * student.stderr, high=value + up * student.stderr)
