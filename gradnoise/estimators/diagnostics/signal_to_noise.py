"""GSNR: the squared mean of every coordinate of the gradient over its variance."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...errors import ArgumentError
from ...moments.moments import ROUNDING, GradientMoments
from ...statistics.estimate import Estimate, Status, short
from ...statistics.quantile import quantile
from ...tensors.trees import TensorDict


@dataclass(frozen=True, eq=False)
class SignalToNoise:
    """The ratio G_j²/Σ_jj of every coordinate (per sample, without unit), and their mean.

    Args:
        values: by name, in the shapes of the parameters, debiased: without signal they scatter
            around 0 and can be negative. nan where all gradients are zero, inf where they are equal
            and not zero.
        mean: over the coordinates with a finite value.
        share_resolved: fraction of these whose |ḡ_j| exceeds t standard errors at `level`; without
            any signal it is 1 - level on the average.
        silent, noiseless: how many coordinates are nan and inf.

    Source: Liu et al. 2020 (arXiv:2001.07384), definition 1.
    """

    values: TensorDict
    mean: Estimate
    share_resolved: float
    silent: int
    noiseless: int

    def __str__(self) -> str:
        if self.mean.is_exact:
            return str(self.mean)
        return f"{short(float(self.mean))}, {self.share_resolved:.0%} of coordinates resolved"


def signal_to_noise(moments: GradientMoments) -> SignalToNoise:
    """GSNR r_j = G_j²/Σ_jj of every coordinate, debiased.

    ḡ_j²/s_j² is biased upwards, by (1/n - 1/N) and because 1/s_j² is convex. Both are corrected,

        r_j ≈ (1 - 2nφ/(n - 1)) ḡ_j²/s_j² - φ,    φ = 1/n - 1/N,

    unbiased for Gaussian gradients (there n ḡ_j²/s_j² is a non-central F) and N = ∞, exact for
    n = N, else with an error of O(1/n). The mean over coordinates has no interval, since their
    errors depend on each other; from 2 or 3 samples of a larger population it has no value. Groups
    of b samples have ratios b times as large; they are returned per sample.

    Args:
        moments: with `variance=True`.

    Returns:
        SignalToNoise; ratios per sample, without unit.

    Raises:
        ArgumentError: the moments hold no variance per coordinate.

    Source: Liu et al. 2020 (arXiv:2001.07384), definition 1.

    Example:
        >>> from gradnoise import noise_scale_from_gradients
        >>> rows = torch.tensor([[3.0, 1.0], [3.0, -1.0], [5.0, 0.0], [1.0, 0.0]])
        >>> found = noise_scale_from_gradients(rows, population="dataset")
        >>> signal_to_noise(found).values[""].tolist()  # 9/(8/3) and 0
        [3.375, 0.0]
    """
    variance = variance_of(replace(moments, group_size=1))
    n, factor, size = moments.count, moments.sampling_factor, moments.group_size
    shrink = max(1 - 2 * n * factor / (n - 1), 0.0)
    values, finite, resolved = {}, [], 0
    critical = quantile(moments.level, n - 1) ** 2 * factor
    for name, mean in moments.mean.items():
        biased = _quotient(mean.square(), variance[name], moments.resolution)
        values[name] = (shrink * biased - factor) / size
        is_finite = torch.isfinite(biased)
        finite.append(values[name][is_finite])
        resolved += int((biased[is_finite] > critical).sum())
    every = torch.cat(finite)
    joined = torch.cat([value.reshape(-1) for value in values.values()])
    return SignalToNoise(
        values=values,
        mean=_mean(every, moments),
        share_resolved=resolved / len(every) if len(every) else 0.0,
        silent=int(joined.isnan().sum()),
        noiseless=int(joined.isinf().sum()),
    )


def variance_of(moments: GradientMoments) -> TensorDict:
    """Variance of every coordinate, by name.

    Raises:
        ArgumentError: the moments do not contain it.
    """
    variance = moments.variance
    if variance is None:
        raise ArgumentError(
            "these moments contain no variances of coordinates: measure with `variance=True`"
        )
    return variance


def _quotient(square: Tensor, variance: Tensor, resolution: float) -> Tensor:
    """ḡ²/s²; a variance within the rounding error of ḡ² counts as 0."""
    none = variance <= ROUNDING * resolution * square
    found = square / variance
    found[none] = torch.where(square[none] > 0, math.inf, math.nan).to(found)
    return found


def _mean(values: Tensor, moments: GradientMoments) -> Estimate:
    level, count = moments.level, moments.group_size * moments.count
    value = float(values.mean()) if len(values) else math.nan
    if len(values) and moments.spread_factor == 0:
        return Estimate(value, value, value, level, 0.0, count)
    enough = moments.count > 3 or not len(values)
    status = Status.NO_INTERVAL if enough else Status.SIGNAL_BELOW_NOISE
    bounds = (-math.inf, math.inf)
    return Estimate(value if enough else math.nan, *bounds, level, math.nan, count, status)
