"""Means over the eigenvalues of a symmetric matrix, with intervals, from a few Gauss rules."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from ...errors import ArgumentError
from ...statistics.estimate import Estimate, Status
from ...statistics.quantile import quantile
from .curve import Curve
from .quadrature import Array, GaussRule

SHORTER = 8  # rules with fewer steps, compared for the quadrature error
FINEST = 0.1  # narrowest width in spans per step; below it shorter rules underestimate the error
WIDTHS = (FINEST, 0.2, 0.4)  # tried in turn for the default, until the curve has settled
SAFE_WIDTH = 0.8  # e^(-(2k)²σ²/2) < 1 % for half-spans: settled for any spectrum
SETTLED = 0.01  # quadrature error of a curve, relative to its area
SEPARATED = 0.2  # a fraction whose bounds are further apart than this gets no value


@dataclass(frozen=True, eq=False, repr=False)
class SpectralMeasure:
    """Gauss rules of a few random vectors, and the means over the spectrum that follow.

    Arguments as for `SpectralDensity`.
    """

    size: int
    rules: tuple[GaussRule, ...]
    steps: int
    zero: float
    level: float

    @property
    def matvecs(self) -> int:
        """Products spent."""
        return sum(len(rule.alphas) for rule in self.rules)

    @property
    def nodes(self) -> tuple[Array, ...]:
        """θ of each probe, ascending."""
        return tuple(rule.nodes for rule in self.rules)

    @property
    def weights(self) -> tuple[Array, ...]:
        """Weights of each probe's nodes, with sum 1."""
        return tuple(rule.weights for rule in self.rules)

    @property
    def lower_edge(self) -> float:
        """The lowest Ritz value; the smallest eigenvalue is there or below."""
        return min(float(nodes[0]) for nodes in self.nodes)

    @property
    def upper_edge(self) -> float:
        """The highest Ritz value; the largest eigenvalue is there or above."""
        return max(float(nodes[-1]) for nodes in self.nodes)

    def mean(self, function: Callable[[Array], Any]) -> Estimate:
        """tr f(A)/P, the mean of f over the eigenvalues.

        Args:
            function: f, on an array of eigenvalues; smooth, or the quadrature error is large.

        Returns:
            Estimate; `stderr` is the sampling error over the probes, the interval includes the
            quadrature error as well.

        Raises:
            ArgumentError: f is not finite at a node.
        """

        def values(nodes: Array) -> Array:
            return np.broadcast_to(np.asarray(function(nodes), dtype=float), nodes.shape)[None]

        if not all(np.isfinite(values(nodes)).all() for nodes in self.nodes):
            raise ArgumentError(
                f"`function` must be finite on the spectrum, which reaches at least from "
                f"{self.lower_edge:g} to {self.upper_edge:g}"
            )
        mean, low, high, error, stderr = (float(part[0]) for part in self._measure(values))
        return self._estimate(mean, low - error, high + error, stderr)

    @property
    def trace(self) -> Estimate:
        """tr A = P · mean node; no quadrature error."""
        mean = self.mean(lambda x: x)
        scaled = (self.size * part for part in (float(mean), mean.low, mean.high, mean.stderr))
        return self._estimate(*scaled)

    @property
    def frobenius_norm(self) -> Estimate:
        """‖A‖_F = √(P · mean squared node); no quadrature error."""
        mean = self.mean(np.square)
        value, low, high = (
            math.sqrt(max(self.size * part, 0.0)) for part in (float(mean), mean.low, mean.high)
        )
        stderr = self.size * mean.stderr / (2 * value) if value > 0 else 0.0
        return self._estimate(value, low, high, stderr)

    def cumulative(self, x: float) -> Estimate:
        """The fraction of the eigenvalues below x.

        The quadrature error is bounded, not estimated: for all spectra with the 2k + 1 moments of
        a probe, the weight below x lies between the bounds of Chebyshev, Markov and Stieltjes.
        Where many eigenvalues are closer to x than k steps resolve, the bounds are far apart, and
        the estimate has no value, only an interval. Wilson's interval at either bound adds the
        sampling error.
        """
        bounds = np.mean([rule.share_below(x) for rule in self.rules], axis=0)
        least, most = bounds.tolist()
        share = float(np.mean([rule.weights[rule.nodes < x].sum() for rule in self.rules]))
        share = min(max(share, least), most)
        (low, _), (_, high) = self._share_interval(least), self._share_interval(most)
        stderr = math.sqrt(self._sampling * max(share * (1 - share), 0.0))
        found = self._estimate(share, max(low, 0.0), min(high, 1.0), stderr)
        if most - least > SEPARATED:
            return replace(found, value=math.nan, status=Status.NOT_SEPARATED)
        return found

    @property
    def share_negative(self) -> Estimate:
        """The fraction of the eigenvalues below zero by more than rounding."""
        return self.cumulative(-self.zero)

    def broaden(self, *, grid: Any = None, width: float | None = None) -> Curve:
        """The density (1/P) Σ_i N(x; λ_i, width²) with its band.

        Args:
            grid: eigenvalues x, shape (m,); default the spectrum and five widths on either side.
            width: standard deviation of the Gaussians; default the narrowest of a few that k steps
                resolve.

        Raises:
            ArgumentError: the width is not positive, or k steps cannot resolve it; the grid is not
                a finite vector.
        """
        if width is None:
            return self._settled(grid)
        if not (math.isfinite(width) and width > 0):
            raise ArgumentError(f"`width` must be positive; got {width}")
        least = 0.999 * FINEST * self._spans_per_step
        if width < least and not all(rule.is_closed for rule in self.rules):
            raise ArgumentError(
                f"{self.steps} steps do not resolve a `width` of {width:g}, only {least:.3g} and "
                f"more: use more `steps`"
            )
        return self._curve(_grid(self, width) if grid is None else _checked_grid(grid), width)

    def _settled(self, grid: Any) -> Curve:
        for factor in WIDTHS:
            width = factor * self._spans_per_step
            curve = self.broaden(grid=None, width=width)
            if curve.quadrature_error.sum() <= SETTLED * curve.density.sum():
                break
        else:
            width = SAFE_WIDTH * self._spans_per_step
        return self.broaden(grid=grid, width=width)

    @cached_property
    def curve(self) -> Curve:
        """The density at the default width and grid."""
        return self.broaden()

    @property
    def grid(self) -> Array:
        """Eigenvalues at which `density` is given, shape (m,)."""
        return self.curve.grid

    @property
    def density(self) -> Array:
        """The broadened density on `grid`, shape (m,); `curve` has its band and width."""
        return self.curve.density

    @property
    def _sampling(self) -> float:
        """κ = 2/((P + 2)q): the variance of a mean over q probes is κ times that of f(λ)."""
        return 2 / ((self.size + 2) * len(self.rules))

    @property
    def _spans_per_step(self) -> float:
        span = self.upper_edge - self.lower_edge
        tiny = max(abs(self.upper_edge), abs(self.lower_edge)) or 1.0
        return (span if span > 2 * self.zero else tiny) / self.steps

    def _curve(self, grid: Array, width: float) -> Curve:
        def bumps(nodes: Array) -> Array:
            height = 1 / (width * math.sqrt(2 * math.pi))
            values: Array = height * np.exp(-0.5 * ((grid[:, None] - nodes) / width) ** 2)
            return values

        mean, low, high, error, _ = self._measure(bumps)
        return Curve(grid, mean, np.maximum(low - error, 0.0), high + error, error, width)

    def _measure(self, values: Callable[[Array], Array]) -> tuple[Array, ...]:
        """Mean, low, high, quadrature error, s.e. of functions: (k,) nodes to (m, k) values."""
        seen = np.concatenate([values(nodes) for nodes in self.nodes], axis=1)  # [m, q k]
        weights = np.concatenate(self.weights) / len(self.rules)
        mean = seen @ weights
        gaps = seen - mean[:, None]
        square = gaps**2 @ weights / (1 - self._sampling)
        cube = gaps**3 @ weights
        slope = np.divide(cube, square, out=np.zeros_like(cube), where=square > 0)
        low, high = _wilson(mean, square, slope, self._sampling, quantile(self.level, math.inf))
        error = self._quadrature_error(values, mean)
        return mean, low, high, error, np.sqrt(self._sampling * square)

    def _quadrature_error(self, values: Callable[[Array], Array], mean: Array) -> Array:
        """The largest difference between the last rule and those of the last quarter of steps."""
        error = np.zeros_like(mean)
        for rules in self._shorter:
            others = [values(rule.nodes) @ rule.weights for rule in rules]
            error = np.maximum(error, np.abs(np.mean(others, axis=0) - mean))
        return error

    @cached_property
    def _shorter(self) -> list[list[GaussRule]]:
        """Rules with up to a quarter fewer steps; none where all rules are exact."""
        if all(rule.is_closed for rule in self.rules):
            return []
        back = (math.ceil(i * self.steps / 4 / SHORTER) for i in range(1, SHORTER + 1))
        taken = sorted({self.steps - fewer for fewer in back})
        return [[rule.shortened(steps) for rule in self.rules] for steps in taken]

    def _share_interval(self, share: float) -> tuple[float, float]:
        if all(rule.is_closed for rule in self.rules) and min(share, 1 - share) < 1e-12:
            return share, share  # every distinct eigenvalue was seen, all on one side
        z = quantile(self.level, math.inf)
        square = max(share * (1 - share), 0.0)
        low, high = _wilson(
            np.array(share), np.array(square), np.array(1 - 2 * share), self._sampling, z
        )
        return float(low), float(high)

    def _estimate(self, value: float, low: float, high: float, stderr: float) -> Estimate:
        return Estimate(value, low, high, self.level, stderr, len(self.rules))


def _wilson(
    mean: Array, square: Array, slope: Array, kappa: float, z: float
) -> tuple[Array, Array]:
    """Wilson's interval for the mean of any function over the eigenvalues.

    All m with (mean - m)² ≤ z² κ V(m). The variance V of f(λ) depends on the mean m with slope
    μ₃/μ₂ (`slope`): V(m) = μ₂ + (μ₃/μ₂) d - d² with d = m - mean. For a fraction this is m(1 - m),
    and the interval is that of Wilson (1927) with 1/κ trials.
    """
    spread = z * z * kappa
    root = np.sqrt((spread * slope / 2) ** 2 + (1 + spread) * spread * square)
    centre = spread * slope / 2
    return mean + (centre - root) / (1 + spread), mean + (centre + root) / (1 + spread)


def _grid(seen: SpectralMeasure, width: float) -> Array:
    low, high = seen.lower_edge - 5 * width, seen.upper_edge + 5 * width
    count = min(max(400, math.ceil(3 * (high - low) / width)), 8000)
    return np.linspace(low, high, count)


def _checked_grid(grid: Any) -> Array:
    points = np.asarray(grid, dtype=float)
    if points.ndim != 1 or len(points) == 0 or not np.isfinite(points).all():
        raise ArgumentError(f"`grid` must be a finite vector; got shape {points.shape}")
    return points
