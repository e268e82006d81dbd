"""The critical batch size from the losses of runs that start at one point and take equal samples.

In the model of McCandlish et al. 2018 (arXiv:1812.06162), batches of B need E_min(1 + B/B_crit)
samples for what very small batches reach with E_min. So a run at B ends where the runs at the
smallest batch size B_0 were after a share (1 + B_0/B_crit)/(1 + B/B_crit) of the samples.

The losses are those at averaged weights, because at the last weights the noise of small batches
hides the shares. Averages also let small batches use larger rates than a run at a constant rate
can: B_crit comes out `LOWER` times too low. That and the spread between predicted and trained
critical batch sizes were found on 16 checkpoints of six problems (docs/advice.md).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
from scipy import optimize, special

from ..statistics.estimate import Estimate, Status

Losses = Mapping[float, np.ndarray]  # a loss per seed, by batch size or by share of the samples
FARTHEST = 64.0  # B_crit is told up to this factor beyond the batch sizes
LOWER = 2.0  # the trained critical batch size over that of averaged weights, in the median
SPREAD = 0.56  # standard deviation of the logarithm of that ratio


def critical_batch_size(losses: Losses, curve: Losses, *, level: float = 0.95) -> Estimate:
    """B_crit, fitted to the shares at all batch sizes.

    Args:
        losses: losses after all samples by batch size, an entry per seed.
        curve: losses at the smallest batch size by the share of its samples, 1 among them.
        level: of the interval: the spread between seeds (delete-one jackknife of ln B_crit with
            Student's quantile) and `SPREAD`, added as independent.

    Returns:
        Estimate, in samples; beyond twice the batch sizes only a bound.
    """
    return _over_seeds(losses, level, lambda own: LOWER * _fit(own(losses), own(curve)), SPREAD)


def largest_within(losses: Losses, tolerance: float, *, level: float = 0.95) -> Estimate:
    """The largest batch size whose loss is within a relative tolerance of the smallest loss.

    Between batch sizes the loss is interpolated in ln B.

    Args:
        losses: losses after equal samples by batch size, an entry per seed.
        tolerance: 0.05 for 5 %.
        level: as for `critical_batch_size`.

    Returns:
        Estimate, in samples.
    """
    return _over_seeds(losses, level, lambda own: _crossing(own(losses), tolerance))


def _over_seeds(
    losses: Losses,
    level: float,
    find: Callable[[Callable[[Losses], dict[float, float]]], float],
    spread: float = 0.0,
) -> Estimate:
    """What is found from means over all seeds, with an interval from leaving out one at a time."""
    count = len(next(iter(losses.values())))

    def without(seed: int | None) -> Callable[[Losses], dict[float, float]]:
        kept = [place for place in range(count) if place != seed]
        return lambda own: {key: float(own[key][kept].mean()) for key in sorted(own)}

    value = find(without(None))
    if math.isnan(value):
        return Estimate(value, 0.0, math.inf, level, math.nan, count, Status.BEYOND_GRID)
    others = [find(without(seed)) for seed in range(count)] if count > 1 else []
    low, high = _interval(value, others, level, spread)
    least, most = min(losses) / 2, 2 * max(losses)
    if least <= value <= most:
        return Estimate(value, low, high, level, math.nan, count)
    low, high = (0.0, max(high, least)) if value < least else (min(low, most), math.inf)
    return Estimate(math.nan, low, high, level, math.nan, count, Status.BEYOND_GRID)


def _interval(
    value: float, others: list[float], level: float, spread: float
) -> tuple[float, float]:
    """The interval of a positive number, from what it is without each of the seeds."""
    width = spread * float(special.ndtri(0.5 + level / 2))
    if not others or not all(0 < other < math.inf for other in others) or math.isinf(value):
        known = [other for other in others if other > 0] or [0.0]
        return min(*known, value) * math.exp(-width), math.inf
    logs, count = np.log(others), len(others)
    error = math.sqrt((count - 1) / count * float(((logs - logs.mean()) ** 2).sum()))
    width = math.hypot(width, float(special.stdtrit(count - 1, 0.5 + level / 2)) * error)
    return value * math.exp(-width), value * math.exp(width)


def _fit(losses: dict[float, float], curve: dict[float, float]) -> float:
    """B_crit of the least squares of the logarithms of the shares; 0 or ∞ at the ends."""
    sizes = np.array(list(losses))
    shares = np.array([share_at(loss, curve) for loss in losses.values()])
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


def share_at(loss: float, curve: Mapping[float, float]) -> float:
    """After which share of the samples the smallest batch size had this loss; nan if unknown."""
    shares, levels = np.log(sorted(curve)), np.array([curve[share] for share in sorted(curve)])
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
