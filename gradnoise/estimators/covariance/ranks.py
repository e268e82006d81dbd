"""How many directions the noise of the gradient has: ranks of Σ that count large eigenvalues."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...moments.moments import GradientMoments
from ...problem.samples import Samples
from ...statistics.estimate import Estimate, Status
from ...statistics.fourth_moments import LEAST, unbiased_squares
from ...statistics.interval import flag_zero, symmetric, with_skew
from ...statistics.skew import Skew
from ...statistics.transform import unknown, within
from ..curvature.extreme_eigenvalue import sharpness_estimate
from ..quotient import quotient
from .spectrum import NoiseSpectrum


@dataclass(frozen=True)
class Dimensions:
    """Functions of the eigenvalues of Σ, for the population; as in `Covariance`."""

    top_eigenvalue: Estimate
    trace_sq: Estimate
    effective_rank: Estimate
    participation_ratio: Estimate

    @classmethod
    def of(cls, moments: GradientMoments, spectrum: NoiseSpectrum, samples: Samples) -> Dimensions:
        """From moments (with intervals) and the top of the spectrum of the same samples."""
        n, level = moments.count, moments.level
        if not len(spectrum.pairs.values):
            zero = symmetric(0.0, 0.0, level=level, samples=n)
            none = unknown(level, n, Status.NOISE_BELOW_ERROR)
            return cls(zero, zero, none, none)
        measured = n >= LEAST and moments.slopes is not None
        along_top = spectrum.centred[:, 0].square() if measured else None
        top = sharpness_estimate(spectrum.pairs, along_top, spectrum.halves, samples, level)
        squares = _Squares.of(moments, spectrum)
        return cls(
            top_eigenvalue=top,
            trace_sq=squares.estimate(moments),
            effective_rank=_effective_rank(moments, spectrum, along_top, top),
            participation_ratio=squares.participation_ratio(moments),
        )


def _effective_rank(
    moments: GradientMoments, spectrum: NoiseSpectrum, along_top: Tensor | None, top: Estimate
) -> Estimate:
    """trΣ/λ; its ends are those for the largest and the smallest λ of the bracket."""
    pairs, halves = spectrum.pairs, spectrum.halves
    raw, residual = float(pairs.values[0]), float(pairs.residuals[0])
    below = raw if halves is None else min(halves.held_out, raw)
    value, low, high = (
        _trace_over(size, moments, along_top) for size in (float(top), raw + residual, below)
    )
    stderr = 0.0 if low.low == high.high else math.nan
    found = replace(value, low=low.low, high=high.high, stderr=stderr)
    if found.is_resolved and not math.isfinite(found.high):
        found = replace(found, status=Status.SIGNAL_BELOW_NOISE, value=math.nan)
    if found.is_resolved and not top.is_resolved:
        found = replace(found, status=top.status)
    return within(found, 1.0, math.inf)


def _trace_over(size: float, moments: GradientMoments, along_top: Tensor | None) -> Estimate:
    """trΣ/λ for one λ, whose influences are those of (c_iᵀv)², `along_top`."""
    factor = moments.spread_factor
    variances, covariance, skew = (0.0, 0.0), 0.0, None
    if factor and along_top is not None:
        spread = moments.deviations()[1].to(along_top)
        pair = torch.stack([spread, along_top - along_top.mean()])
        matrix = factor * torch.cov(pair)
        variances = moments.trace_cov.stderr**2, float(matrix[1, 1])
        covariance, skew = float(matrix[0, 1]), Skew.of(pair, moments.spread_population)
    elif factor:
        variances = math.nan, math.nan
    trace = float(moments.trace_cov)
    return quotient(trace, size, moments, variances=variances, covariance=covariance, skew=skew)


def square_influences(moments: GradientMoments, spectrum: NoiseSpectrum) -> Tensor:
    """2 c_iᵀΣc_i less its mean, the influence of a sample on tr(Σ²), shape (n,).

    c_iᵀΣ̂c_i also holds the sample's contribution to Σ̂ itself, ‖c_i‖⁴/(n - 1), which the unbiased
    estimate does not. What remains counts the variance of second order twice, as the jackknife
    does (Efron and Stein 1981).
    """
    n, quadratic = moments.count, spectrum.quadratic
    itself = moments.distances.to(quadratic).square() / (n - 1)
    influences = 2 * (quadratic - moments.spread_factor * n * itself)
    return influences - influences.mean()


@dataclass(frozen=True, eq=False)
class _Squares:
    """tr(Σ²) and (trΣ)² with the influence of every sample on both.

    Args:
        matrix, trace: tr(Σ²) and (trΣ)², unbiased.
        influences: on (trΣ)² and tr(Σ²), shape (2, n); None where nothing was sampled or too few.
        variances: of (trΣ)² and tr(Σ²).
    """

    matrix: float
    trace: float
    influences: Tensor | None
    variances: tuple[float, float]

    @classmethod
    def of(cls, moments: GradientMoments, spectrum: NoiseSpectrum) -> _Squares:
        factor, n, measured = moments.spread_factor, moments.count, spectrum.trace_sq
        size = float(moments.trace_cov)
        if not factor:
            return cls(measured, size**2, None, (0.0, spectrum.probe_variance))
        if moments.slopes is None or n < LEAST:
            return cls(math.nan, math.nan, None, (math.nan, math.nan))
        spread = moments.deviations()[1].to(spectrum.quadratic)
        matrix, trace = unbiased_squares(measured, moments.distances, moments.spread_population)
        influences = torch.stack([2 * size * spread, square_influences(moments, spectrum)])
        sampled = factor * float(influences[1].var())
        variances = (
            (2 * size * moments.trace_cov.stderr) ** 2,
            max(sampled, 4 * (factor * matrix) ** 2) + spectrum.probe_variance,
        )
        return cls(matrix, trace, influences, variances)

    def estimate(self, moments: GradientMoments) -> Estimate:
        """tr(Σ²)."""
        level, n = moments.level, moments.count
        if math.isnan(self.matrix):
            return unknown(level, n, Status.NOISE_BELOW_ERROR)
        if self.influences is None:
            return symmetric(self.matrix, self.variances[1], level=level, samples=n)
        skew = Skew.of(self.influences[1:], moments.spread_population)
        return flag_zero(
            with_skew(self.matrix, self.variances[1], skew, level=level, samples=n, freedom=n - 1)
        )

    def participation_ratio(self, moments: GradientMoments) -> Estimate:
        """(trΣ)²/tr(Σ²), at least 1."""
        if math.isnan(self.matrix):
            return unknown(moments.level, moments.count, Status.NOISE_BELOW_ERROR)
        covariance, skew = 0.0, None
        if self.influences is not None:
            covariance = moments.spread_factor * float(torch.cov(self.influences)[0, 1])
            skew = Skew.of(self.influences, moments.spread_population)
        found = quotient(
            self.trace,
            self.matrix,
            moments,
            variances=self.variances,
            covariance=covariance,
            skew=skew,
        )
        return within(found, 1.0, math.inf)
