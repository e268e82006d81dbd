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
from ...statistics.ratio import ratio
from ...statistics.skew import Skew
from ...statistics.transform import unknown, within
from ..curvature.extreme_eigenvalue import sharpness_estimate
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
        known = n >= LEAST and moments.slopes is not None
        own = spectrum.centred[:, 0].square() if known else None
        top = sharpness_estimate(spectrum.pairs, own, spectrum.halves, samples, level)
        squares = _Squares.of(moments, spectrum)
        return cls(
            top_eigenvalue=top,
            trace_sq=squares.estimate(moments),
            effective_rank=_effective_rank(moments, spectrum, own, top),
            participation_ratio=squares.participation_ratio(moments),
        )


def _effective_rank(
    moments: GradientMoments, spectrum: NoiseSpectrum, own: Tensor | None, top: Estimate
) -> Estimate:
    """trΣ/λ; its ends are those for the largest and the smallest λ of the bracket."""
    pairs, halves = spectrum.pairs, spectrum.halves
    raw, residual = float(pairs.values[0]), float(pairs.residuals[0])
    below = raw if halves is None else min(halves.held_out, raw)
    value, low, high = (
        _rank_beside(moments, own, size) for size in (float(top), raw + residual, below)
    )
    stderr = 0.0 if low.low == high.high else math.nan
    found = replace(value, low=low.low, high=high.high, stderr=stderr)
    if found.is_resolved and not math.isfinite(found.high):
        found = replace(found, status=Status.SIGNAL_BELOW_NOISE, value=math.nan)
    if found.is_resolved and not top.is_resolved:
        found = replace(found, status=top.status)
    return within(found, 1.0, math.inf)


def _rank_beside(moments: GradientMoments, own: Tensor | None, size: float) -> Estimate:
    factor, n = moments.sampling_factor, moments.count
    variances, covariance, skew = (0.0, 0.0), 0.0, None
    if factor and own is not None:
        pair = torch.stack([moments.deviations()[1].to(own), own - own.mean()])
        matrix = factor * torch.cov(pair)
        variances = moments.trace_cov.stderr**2, float(matrix[1, 1])
        covariance, skew = float(matrix[0, 1]), Skew.of(pair, moments.population)
    elif factor:
        variances = math.nan, math.nan
    return ratio(
        float(moments.trace_cov),
        size,
        variances=variances,
        covariance=covariance,
        level=moments.level,
        samples=n,
        freedom=n - 1,
        positive_denominator=True,
        skew=skew,
    )


def square_influences(moments: GradientMoments, spectrum: NoiseSpectrum) -> Tensor:
    """2 c_iᵀΣc_i less its mean, the influence of a sample on tr(Σ²), shape (n,).

    A sample enters c_iᵀΣ̂c_i also through its own part of Σ̂, ‖c_i‖⁴/(n - 1), which the unbiased
    estimate does not hold. What is left overcounts the variance that is of second order by two, as
    the jackknife does (Efron and Stein 1981).
    """
    n = moments.count
    own = moments.distances.to(spectrum.forms).square() / (n - 1)
    forms = 2 * (spectrum.forms - moments.sampling_factor * n * own)
    return forms - forms.mean()


@dataclass(frozen=True, eq=False)
class _Squares:
    """tr(Σ²) and (trΣ)² with the influence of every sample on both.

    Args:
        own, both: tr(Σ²) and (trΣ)², unbiased.
        influences: on (trΣ)² and tr(Σ²), shape (2, n); None where nothing was sampled or too few.
        variances: of (trΣ)² and tr(Σ²).
    """

    own: float
    both: float
    influences: Tensor | None
    variances: tuple[float, float]

    @classmethod
    def of(cls, moments: GradientMoments, spectrum: NoiseSpectrum) -> _Squares:
        factor, n, plain = moments.sampling_factor, moments.count, spectrum.trace_sq
        trace = float(moments.trace_cov)
        if not factor:
            return cls(plain, trace**2, None, (0.0, spectrum.probe_variance))
        if moments.slopes is None or n < LEAST:
            return cls(math.nan, math.nan, None, (math.nan, math.nan))
        spread = moments.deviations()[1].to(spectrum.forms)
        own, both = unbiased_squares(plain, moments.distances, moments.population)
        influences = torch.stack([2 * trace * spread, square_influences(moments, spectrum)])
        sampled = factor * float(influences[1].var())
        variances = (
            (2 * trace * moments.trace_cov.stderr) ** 2,
            max(sampled, 4 * (factor * own) ** 2) + spectrum.probe_variance,
        )
        return cls(own, both, influences, variances)

    def estimate(self, moments: GradientMoments) -> Estimate:
        """tr(Σ²)."""
        level, n = moments.level, moments.count
        if math.isnan(self.own):
            return unknown(level, n, Status.NOISE_BELOW_ERROR)
        if self.influences is None:
            return symmetric(self.own, self.variances[1], level=level, samples=n)
        skew = Skew.of(self.influences[1:], moments.population)
        return flag_zero(
            with_skew(self.own, self.variances[1], skew, level=level, samples=n, freedom=n - 1)
        )

    def participation_ratio(self, moments: GradientMoments) -> Estimate:
        """(trΣ)²/tr(Σ²), at least 1."""
        level, n = moments.level, moments.count
        if math.isnan(self.own):
            return unknown(level, n, Status.NOISE_BELOW_ERROR)
        covariance, skew = 0.0, None
        if self.influences is not None:
            covariance = moments.sampling_factor * float(torch.cov(self.influences)[0, 1])
            skew = Skew.of(self.influences, moments.population)
        found = ratio(
            self.both,
            self.own,
            variances=self.variances,
            covariance=covariance,
            level=level,
            samples=n,
            freedom=n - 1,
            positive_denominator=True,
            skew=skew,
        )
        return within(found, 1.0, math.inf)
