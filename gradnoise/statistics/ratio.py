"""Ratios of two estimates, with intervals that are open where the denominator is weak."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from .estimate import Estimate, Status
from .quantile import quantile

HALVINGS = 35  # of the bracket of an end: ten digits


class Skewed(Protocol):
    """Skewness of the two parts: `Skew`, which needs torch, as this file does not."""

    def critical_values(
        self, weights: tuple[float, ...], stderr: float, t: float
    ) -> tuple[float, float]:
        """t of the lower and of the upper end."""


def ratio(
    numerator: float,
    denominator: float,
    *,
    variances: tuple[float, float],
    covariance: float,
    level: float,
    samples: int,
    freedom: float = math.inf,
    positive_denominator: bool = False,
    skew: Skewed | None = None,
) -> Estimate:
    """numerator/denominator with Fieller's interval, which stays valid for a weak denominator.

    Fieller (1954): all R for which |numerator - R·denominator| is at most t standard errors. The
    interval is open to infinity exactly where the denominator is not distinguishable from zero;
    then there is no value, only a lower bound. The ratio is a noise scale, so the interval is cut
    to [0, ∞). With `skew` the critical value t is corrected for the skewness of
    numerator - R·denominator, as in `with_skew`: then the interval is open exactly where the
    skewness-corrected interval of the denominator contains zero.

    Args:
        numerator, denominator: estimates of the two parts.
        variances: of the numerator and of the denominator; nan when not measured.
        covariance: between the two.
        level: nominal coverage.
        samples: n, stored in the estimate.
        freedom: degrees of freedom of the variances.
        positive_denominator: whether the true denominator cannot be negative (a squared norm);
            a negative estimate then means an unresolved one, not negative curvature.
        skew: of (numerator, denominator); None for Fieller's interval without correction.

    Returns:
        The ratio in the units of its parts' quotient. Its status is `NEGATIVE_CURVATURE` where the
        interval of a part lies below zero, `SIGNAL_BELOW_NOISE` where that of the denominator
        contains it, `NOISE_BELOW_ERROR` where the numerator is not above zero, and `NO_INTERVAL`
        without variances.

    Example:
        >>> print(ratio(6.0, 3.0, variances=(0.04, 0.01), covariance=0.0, level=0.95, samples=100))
        2.00 [1.82, 2.19]
    """
    if math.isnan(variances[0] + variances[1]):
        return _bare_ratio(numerator, denominator, level, samples)
    if variances == (0.0, 0.0) and numerator >= 0 and denominator > 0:
        value = numerator / denominator
        return Estimate(value, value, value, level, 0.0, samples)
    errors = math.sqrt(variances[0]), math.sqrt(variances[1])
    # a squared norm estimated below zero counts as zero in the lower bound of the ratio
    least = max(denominator, 0.0) if positive_denominator else denominator
    most = errors[0] * errors[1]  # estimated separately, a covariance can exceed what is possible
    covariance = min(max(covariance, -most), most)
    parts = _Parts((numerator, least), errors, covariance, quantile(level, freedom), skew)
    weak = not parts.exceeds(0.0, 1.0)
    negative = parts.falls_below(0.0, 1.0) and not positive_denominator
    if negative or parts.falls_below(1.0, 0.0):
        bounds, status = (-math.inf, math.inf), Status.NEGATIVE_CURVATURE
    elif weak:
        bounds, status = (parts.bounds()[0], math.inf), Status.SIGNAL_BELOW_NOISE
    else:
        bounds = parts.bounds()
        status = Status.RESOLVED if numerator > 0 else Status.NOISE_BELOW_ERROR
    value = numerator / denominator if status is Status.RESOLVED else math.nan
    return Estimate(value, *bounds, level, math.nan, samples, status)


@dataclass(frozen=True)
class _Parts:
    """Numerator and denominator with the errors of their linear combinations."""

    values: tuple[float, float]
    errors: tuple[float, float]
    covariance: float
    t: float
    skew: Skewed | None

    def exceeds(self, first: float, second: float) -> bool:
        """Whether first·numerator + second·denominator is above zero, significantly."""
        value, stderr = self._combined(first, second)
        return value > stderr * self._critical_values(first, second, stderr)[0]

    def falls_below(self, first: float, second: float) -> bool:
        """Whether first·numerator + second·denominator is below zero, significantly."""
        value, stderr = self._combined(first, second)
        return value < -stderr * self._critical_values(first, second, stderr)[1]

    def bounds(self) -> tuple[float, float]:
        """Fieller's interval, cut to [0, ∞), and what skewness adds to it at both ends."""
        units = self._units()
        unit = units[0] / units[1]
        low, high = (unit * end for end in self._fieller(units))
        if self.skew is None:
            return low, high

        def direction(angle: float) -> tuple[float, float]:  # of numerator - R·denominator
            return math.cos(angle) / units[0], -math.sin(angle) / units[1]

        if not self.exceeds(1.0, 0.0):
            low = 0.0
        elif low > 0:
            angle = _edge(math.atan(low / unit), 0.0, lambda at: self.exceeds(*direction(at)))
            low = unit * math.tan(angle)
        if self.exceeds(0.0, 1.0):
            right = math.pi / 2
            angle = _edge(
                math.atan(high / unit), right, lambda at: self.falls_below(*direction(at))
            )
            high = unit / math.tan(right - angle)
        return low, high

    def _combined(self, first: float, second: float) -> tuple[float, float]:
        value = first * self.values[0] + second * self.values[1]
        both = 2 * first * second * self.covariance
        variance = (first * self.errors[0]) ** 2 + both + (second * self.errors[1]) ** 2
        return value, math.sqrt(max(variance, 0.0))

    def _critical_values(self, first: float, second: float, stderr: float) -> tuple[float, float]:
        if self.skew is None:
            return self.t, self.t
        return self.skew.critical_values((first, second), stderr, self.t)

    def _units(self) -> tuple[float, float]:
        first, second = zip(self.values, self.errors, strict=True)
        return max(abs(first[0]), first[1]) or 1.0, max(abs(second[0]), second[1]) or 1.0

    def _fieller(self, units: tuple[float, float]) -> tuple[float, float]:
        """{R : aR² - 2bR + c <= 0}, cut to [0, ∞), in units of both parts: nothing overflows."""
        numerator, denominator = self.values[0] / units[0], self.values[1] / units[1]
        errors = self.errors[0] / units[0], self.errors[1] / units[1]
        a = denominator**2 - (self.t * errors[1]) ** 2
        b = numerator * denominator - self.t**2 * (self.covariance / units[0] / units[1])
        c = numerator**2 - (self.t * errors[0]) ** 2
        root = math.sqrt(max(b * b - a * c, 0.0))
        if a > 0:
            return max((b - root) / a, 0.0), max((b + root) / a, 0.0)
        # outside the roots: with a clear numerator, c > 0, one of them is positive; else all R
        return (c / (b + root) if c > 0 and b + root > 0 else 0.0), math.inf


def _edge(inside: float, outside: float, rejected: Callable[[float], bool]) -> float:
    """Where acceptance ends between a point that is accepted and one that is not."""
    # By halves, not by scipy: the ends are decided with other rounding than the points between
    # them, so that a continuous margin can have the same sign at both, which brentq refuses.
    for _ in range(HALVINGS):
        middle = (inside + outside) / 2
        if rejected(middle):
            outside = middle
        else:
            inside = middle
    return inside


def _bare_ratio(numerator: float, denominator: float, level: float, samples: int) -> Estimate:
    usable = numerator >= 0 and denominator > 0
    negative = Status.NOISE_BELOW_ERROR if denominator > 0 else Status.SIGNAL_BELOW_NOISE
    status = Status.NO_INTERVAL if usable else negative
    value = numerator / denominator if usable else math.nan
    return Estimate(value, 0.0, math.inf, level, math.nan, samples, status)
