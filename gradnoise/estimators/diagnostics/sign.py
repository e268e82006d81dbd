"""The noise scale of sign descent, a model of Adam."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ...moments.moments import ROUNDING, GradientMoments
from ...statistics.estimate import Estimate, Status
from ...statistics.quantile import quantile
from ..from_arrays.inputs import as_rows
from .by_unit import counted_in_samples
from .dual_norm import SPLITS, Geometry, dual_noise_scale
from .signal_to_noise import variance_of

NULL_SPREAD = 0.8372  # standard deviation of `_debiased` for a standard normal mean


@counted_in_samples
def sign_noise_scale(
    gradients: Any,
    *,
    population: str | int = "distribution",
    splits: int = SPLITS,
    level: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """‖σ‖₁²/‖G‖₁², the noise scale of sign descent, a model of Adam; σ_j² = Σ_jj.

    From per-sample gradients: the direction sign(ḡ) from one half of the samples, the length from
    the other. The signal of a coordinate that is not resolved is underestimated, by 0.5 standard
    errors at most, so the value is biased upwards. The upper end of the interval is Fieller's for
    this signal (variance doubled: without signal halves agree by chance), the lower end Fieller's
    for ‖ḡ‖₁, which is biased the other way: the two bracket the true value.

    From moments: the same split in closed form for normal ḡ_j with standard error e_j,
    ḡ erf(ḡ/(√2e)) - √(2/π) e exp(-ḡ²/2e²) for every coordinate; without interval, and not resolved
    where noise alone could give the sum.

    Args:
        gradients: GradientMoments with `variance=True`, or rows (n, P), or name -> (n, *shape),
            n from 4 on.
        population: as for `noise_scale_from_gradients`, for rows; moments have their own.
        splits: number of random splits into halves, for rows.
        level: coverage of the interval, for rows.
        seed: of the splits.

    Returns:
        Estimate in samples; exact where the whole population was measured.

    Raises:
        ArgumentError: moments without variances, not finite rows, or an option out of range.

    Source: arXiv:2602.03001 for the ratio; the debiasing is ours (docs/theory/diagnostics.md).

    Example:
        >>> rows = torch.tensor([[3.0, 1.0], [3.0, 1.0], [5.0, 1.0], [1.0, 1.0]])
        >>> round(float(sign_noise_scale(rows, population="dataset")), 4)  # (8/3)/4²
        0.1667
    """
    if isinstance(gradients, GradientMoments):
        return _sign_of_moments(gradients)
    named = as_rows(gradients, least=4)
    rows = {name: tensor.reshape(len(tensor), -1) for name, tensor in named.items()}
    return dual_noise_scale(
        rows, Geometry(_sign_noise, torch.sign), population, splits, level, seed
    )


def _sign_noise(centred: Tensor) -> tuple[float, Tensor]:
    squares = centred.square()
    deviation = (squares.sum(0) / (len(centred) - 1)).sqrt()
    weights = torch.where(deviation > 0, 0.5 / deviation, 0.0)
    value = deviation.sum()
    return float(value), squares @ weights - value / 2


def _sign_of_moments(moments: GradientMoments) -> Estimate:
    variance = variance_of(moments)
    noise, signal, biased = 0.0, 0.0, 0.0
    for name, mean in moments.mean.items():
        error = (moments.sampling_factor * variance[name]).sqrt()
        noise += float(variance[name].sqrt().sum())
        signal += float(_debiased(mean, error).sum())
        biased += float(mean.abs().sum())
    level, count = moments.level, moments.count
    chance = _chance(moments, noise)
    if signal <= chance + ROUNDING * moments.resolution * noise:
        low = (noise / (biased + chance)) ** 2 if biased + chance else 0.0
        bounds = (low, math.inf)
        return Estimate(math.nan, *bounds, level, math.nan, count, Status.SIGNAL_BELOW_NOISE)
    value = (noise / signal) ** 2
    if moments.spread_factor == 0:
        return Estimate(value, value, value, level, 0.0, count)
    return Estimate(value, 0.0, math.inf, level, math.nan, count, Status.NO_INTERVAL)


def _chance(moments: GradientMoments, noise: float) -> float:
    """The debiased signal that noise alone can give: t standard deviations.

    For coordinates of one scale with correlations ρ its variance is NULL_SPREAD² e² Σρ² to leading
    order, and Σρ² is P²tr(Σ²)/(trΣ)². Where tr(Σ²) was not measured, correlations of 1 are assumed.
    """
    trace, factor = float(moments.trace_cov), moments.sampling_factor
    if not factor or not trace:
        return 0.0
    share = math.sqrt(moments.trace_cov_sq) / trace
    share = 1.0 if math.isnan(share) else min(share, 1.0)
    critical = quantile(moments.level, moments.count - 1)
    return critical * NULL_SPREAD * noise * math.sqrt(factor) * share


def _debiased(mean: Tensor, error: Tensor) -> Tensor:
    """|G_j| from ḡ_j: the split estimate averaged over all splits of a normal ḡ_j.

    Its mean is G erf(G/2e): 0 without signal, never above |G|. Its standard deviation without
    signal is NULL_SPREAD times e.
    """
    clear = mean.abs() / error.clamp(min=torch.finfo(error.dtype).tiny)
    gauss = math.sqrt(2 / math.pi) * error * torch.exp(-clear.square() / 2)
    found: Tensor = mean.abs() * torch.erf(clear / math.sqrt(2)) - gauss
    return found
