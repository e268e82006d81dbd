"""The critical batch size from the losses of runs that start at one point and take equal samples.

In the model of McCandlish et al. 2018 (arXiv:1812.06162), batches of B need E_min(1 + B/B_crit)
samples for what very small batches reach with E_min. So a run at B ends where the runs at the
smallest batch size B_0 were after a share (1 + B_0/B_crit)/(1 + B/B_crit) of the samples.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from scipy import optimize

from ..statistics.estimate import Estimate, Status

Losses = Mapping[float, np.ndarray]  # a loss per seed, by batch size or by share of the samples
RESAMPLES = 400
FARTHEST = 64.0  # B_crit is told up to this factor beyond the batch sizes


def critical_batch_size(
    losses: Losses, curve: Losses, *, level: float = 0.95, seed: int = 0
) -> Estimate:
    """B_crit, fitted to the shares of all batch sizes; its interval resamples the seeds.

    Args:
        losses: losses after all samples by batch size, an entry per seed.
        curve: losses of the smallest batch size by the share of its samples, 1 among them.
        level, seed: of the interval, and of the resampling.

    Returns:
        Estimate, in samples.
    """
    count = len(next(iter(losses.values())))
    value = _fit(_means(losses, None), _means(curve, None))
    source = np.random.default_rng(seed)
    found = []
    for _ in range(RESAMPLES if count > 1 else 0):
        chosen = source.integers(count, size=count)
        found.append(_fit(_means(losses, chosen), _means(curve, chosen)))
    return _estimate(value, found, level, count, (min(losses), max(losses)))


def largest_within(
    losses: Losses, tolerance: float, *, level: float = 0.95, seed: int = 0
) -> Estimate:
    """The largest batch size whose loss is within a relative tolerance of the smallest loss.

    Between batch sizes the loss is interpolated in ln B.

    Args:
        losses: losses after equal samples by batch size, an entry per seed.
        tolerance: 0.05 for 5 %.
        level, seed: as above.
    """
    count = len(next(iter(losses.values())))
    value = _crossing(_means(losses, None), tolerance)
    source = np.random.default_rng(seed)
    found = [
        _crossing(_means(losses, source.integers(count, size=count)), tolerance)
        for _ in range(RESAMPLES if count > 1 else 0)
    ]
    return _estimate(value, found, level, count, (min(losses), max(losses)))


def _means(losses: Losses, chosen: np.ndarray | None) -> dict[float, float]:
    """The mean over seeds, or over resampled ones, in ascending order of the key."""
    rows = ((key, values if chosen is None else values[chosen]) for key, values in losses.items())
    return {key: float(np.mean(values)) for key, values in sorted(rows)}


def _fit(losses: dict[float, float], curve: dict[float, float]) -> float:
    """B_crit of the least squares of the logarithms of the shares; 0 or ∞ at the ends."""
    sizes = np.array(list(losses))
    shares = np.array([_share(loss, curve) for loss in losses.values()])
    known = (sizes > sizes[0]) & np.isfinite(shares)
    if not known.any():
        return math.nan
    target, size = np.log(shares[known]), sizes[known]
    # a share below all that were tried is only a bound
    open_end = target <= math.log(min(curve)) + 1e-9

    def misfit(log_scale: float) -> float:
        scale = math.exp(log_scale)
        gap = np.log1p(sizes[0] / scale) - np.log1p(size / scale) - target
        gap = np.where(open_end, np.maximum(gap, 0.0), gap)
        return float(np.sum(gap**2))

    low, high = math.log(sizes[0] / FARTHEST), math.log(sizes[-1] * FARTHEST)
    grid = np.linspace(low, high, 200)
    best = int(np.argmin([misfit(point) for point in grid]))
    if best == len(grid) - 1:
        return math.inf
    ends = grid[max(best - 1, 0)], grid[best + 1]
    return math.exp(optimize.minimize_scalar(misfit, bounds=ends, method="bounded").x)


def _share(loss: float, curve: dict[float, float]) -> float:
    """After which share of the samples the smallest batch size had this loss; nan if unknown."""
    shares, levels = np.log(list(curve)), np.array(list(curve.values()))
    levels = np.minimum.accumulate(levels)  # noise can make it rise
    if not levels[0] > levels[-1]:
        return math.nan
    return math.exp(float(np.interp(-loss, -levels, shares)))


def _crossing(losses: dict[float, float], tolerance: float) -> float:
    sizes, levels = np.log(list(losses)), np.array(list(losses.values()))
    limit = levels.min() + tolerance * abs(levels.min())
    inside = np.flatnonzero(levels <= limit)
    last = int(inside[-1])
    if last == len(sizes) - 1:
        return math.inf
    above = levels[last + 1]
    part = (limit - levels[last]) / (above - levels[last]) if math.isfinite(above) else 0.0
    return math.exp(float(sizes[last] + part * (sizes[last + 1] - sizes[last])))


def _estimate(
    value: float, found: list[float], level: float, count: int, tried: tuple[float, float]
) -> Estimate:
    """The value with the quantiles of its resamples; open beyond the batch sizes that were tried."""
    known = [x for x in found if not math.isnan(x)]
    low, high = 0.0, math.inf
    if known and len(known) > 0.9 * len(found):
        tails = (1 - level) / 2
        low, high = (
            float(np.quantile(known, q, method=m))
            for q, m in ((tails, "lower"), (1 - tails, "higher"))
        )
    inside = tried[0] / 2 <= value <= tried[1] * 2 and math.isfinite(high)
    if not inside:
        low, high = (low, math.inf) if not value < tried[0] else (0.0, high)
    status = Status.RESOLVED if inside else Status.BEYOND_GRID
    low, high = min(low, value), max(high, value)
    return Estimate(value if inside else math.nan, low, high, level, math.nan, count, status)
