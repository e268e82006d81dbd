"""The critical batch size from the losses of runs that start at one point and take equal samples.

It is that of as many samples as the runs take: in longer runs it is often larger, with momentum
several times where the largest batches make few steps (docs/advice.md).

Two ways, and their geometric mean, at most a factor of 2 from the first.

By shares: in the model of McCandlish et al. 2018 (arXiv:1812.06162), batches of B need
E_min(1 + B/B_crit) samples for what very small batches reach with E_min. So a run at B ends where
the runs at the smallest batch size B_0 were after a share (1 + B_0/B_crit)/(1 + B/B_crit) of the
samples. The losses are those at averaged weights, because at the last weights the noise of small
batches hides the shares. Averages also let small batches use larger rates than a run at a constant
rate can, so that B_crit comes out too low.

By the fall of the loss: ε·trΣ/D, with ε the largest of the best rates, times 1/(1 - m), and
D = -dL/d ln E the fall of the loss per e-fold of the samples. At small B the noise of a constant
rate keeps the loss ε·trΣ/(4B) above what it comes to, so that the best rate is in proportion to
B·D/trΣ; at large B it is constant. Both rates are equal at B_crit (docs/advice.md). The best rate
at averaged weights is larger than that at the last ones, so that B_crit comes out too high.

How much too low and too high, and the spreads between these numbers and trained critical batch
sizes, was found on 30 checkpoints of ten problems, and tried on 18 of six others (docs/advice.md).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import scipy

from ..statistics.estimate import Estimate, Status

Losses = Mapping[float, np.ndarray]  # a loss per seed, by batch size or by share of the samples
Way = Callable[["int | None"], float]  # from the seed that is left out
TINY = 1e-9
FARTHEST = 64.0  # bounds of B_crit are told up to this factor beyond the batch sizes
BEYOND = 4.0  # and B_crit itself up to this one
BY_SHARES, BY_FALL = 1.7, 0.5  # the trained critical batch size over that of each way, about
SCHEDULED = 1.0  # over that by shares, where the rate of runs and of training has a schedule
ALONE, BOTH = 0.6, 0.45  # standard deviations of ln(told/trained), by one way and by both,
ONE_SEED = 0.75  # and where one seed does not show its spread
AGREE = 2.0  # factor within which the two ways agree
APART = 4.0  # and beyond which the second is no help: where the loss has stopped falling, D is 0


@dataclass(frozen=True)
class Fall:
    """What ε·trΣ/D needs besides the losses.

    Args:
        trace_cov: trΣ of one sample's gradient, in the metric of the optimizer.
        lr: ε, the largest of the best rates of the batch sizes, times 1/(1 - m).
    """

    trace_cov: float
    lr: float

    def batch_size(self, curve: dict[float, float]) -> float:
        """ε·trΣ/D; nan where the loss rises."""
        fall = fall_of(curve)
        return self.lr * self.trace_cov / fall if fall > 0 else math.nan


def fall_of(curve: Mapping[float, float]) -> float:
    """D, the fall of the loss per e-fold of the samples.

    From a quarter of the samples, or half of them, to all; 0 where neither was run.
    """
    earlier = min((share for share in curve if 0.2 < share < 1), default=1.0)
    return (curve[earlier] - curve[1.0]) / math.log(1 / earlier) if earlier < 1 else 0.0


def critical_batch_size(
    losses: Losses,
    curve: Losses,
    fall: Fall | None = None,
    *,
    start: float | None = None,
    factor: float = BY_SHARES,
    level: float = 0.95,
) -> Estimate:
    """B_crit by shares, by the fall of the loss, or both.

    Args:
        losses: losses after all samples by batch size, an entry per seed.
        curve: losses at the smallest batch size by the share of its samples, 1 among them.
        fall: for the second way; None leaves it out.
        start: the loss where runs start; None: not known.
        factor: the trained critical batch size over that by shares.
        level: of the interval: the spread between seeds (delete-one jackknife of ln B_crit with
            Student's quantile) and `ALONE` or `BOTH`, added as independent; of one seed `ONE_SEED`.

    Returns:
        Estimate, in samples; further than `BEYOND` from the batch sizes only a bound.
    """
    by_shares, by_fall = _ways(losses, curve, fall, start, factor)
    count = len(next(iter(losses.values())))

    def find(without: int | None) -> float:
        return _middle(by_shares(without), by_fall(without))

    if math.isnan(find(None)):
        return Estimate(math.nan, 0.0, math.inf, level, math.nan, count, Status.BEYOND_GRID)
    both = _within(by_shares(None), by_fall(None), APART)
    spread = (BOTH if both else ALONE) if count > 1 else ONE_SEED
    return _over_seeds(losses, level, find, spread, BEYOND)


def _middle(by_shares: float, by_fall: float) -> float:
    """The geometric mean, within √APART of the first; the one that is known."""
    if math.isnan(by_shares) or math.isnan(by_fall):
        return max(by_fall if math.isnan(by_shares) else by_shares, TINY)
    by_shares = max(by_shares, TINY)
    apart = min(max(by_fall / by_shares, 1 / APART), APART) if by_shares < math.inf else 1.0
    return by_shares * math.sqrt(apart)


def _within(one: float, other: float, factor: float) -> bool:
    return other > 0 and 1 / factor <= one / other <= factor


def agree(losses: Losses, curve: Losses, fall: Fall | None, start: float | None = None) -> bool:
    """Whether both ways tell the same critical batch size, within a factor of 2."""
    by_shares, by_fall = (way(None) for way in _ways(losses, curve, fall, start, BY_SHARES))
    return _within(by_shares, by_fall, AGREE)


def _ways(
    losses: Losses, curve: Losses, fall: Fall | None, start: float | None, factor: float
) -> tuple[Way, Way]:
    def by_shares(without: int | None) -> float:
        return factor * _fit(_means(losses, without), _means(curve, without), start)

    def by_fall(without: int | None) -> float:
        if fall is None or len(losses) == 1:  # one batch size does not show the best rate
            return math.nan
        return BY_FALL * fall.batch_size(_means(curve, without))

    return by_shares, by_fall


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
    return _over_seeds(
        losses, level, lambda without: _crossing(_means(losses, without), tolerance), 0.0, 1.0
    )


def _means(losses: Losses, without: int | None) -> dict[float, float]:
    """The mean over seeds by key, ascending; without one of them."""
    count = len(next(iter(losses.values())))
    kept = [place for place in range(count) if place != without]
    return {key: float(losses[key][kept].mean()) for key in sorted(losses)}


def _over_seeds(losses: Losses, level: float, find: Way, spread: float, beyond: float) -> Estimate:
    """What is found from all seeds, with an interval from leaving out one at a time.

    Args:
        losses, level: as for `critical_batch_size`.
        find: from the seed that is left out.
        spread: standard deviation of ln(told/true) besides that of the seeds.
        beyond: factor beyond the batch sizes up to which a value is told.
    """
    count, value = len(next(iter(losses.values()))), find(None)
    if count == 1 and not spread:
        low, high, width = 0.0, math.inf, 0.0
    else:
        others = [find(seed) for seed in range(count)] if count > 1 else []
        width = spread * float(scipy.special.ndtri(0.5 + level / 2))
        low, high = _interval(value, others, level, width)
    low = low if low >= min(losses) / FARTHEST else 0.0  # a bound so far off says nothing
    high = high if high <= max(losses) * FARTHEST else math.inf
    least, most = min(losses) / beyond, beyond * max(losses)
    if least <= value <= most:
        return Estimate(value, low, high, level, math.nan, count)
    if value > most:
        low, high = min(low, most * math.exp(-width)), math.inf
    else:
        low, high = 0.0, max(high, least * math.exp(width))
    return Estimate(math.nan, low, high, level, math.nan, count, Status.BEYOND_GRID)


def _interval(value: float, others: list[float], level: float, width: float) -> tuple[float, float]:
    """The interval of a positive number.

    Args:
        value: the number.
        others: what it is without each of the seeds; none of one seed.
        level: of the interval.
        width: half of it in the logarithm, without the spread between seeds.
    """
    if math.isinf(value) or not all(TINY < other < math.inf for other in others):
        known = [other for other in others if other > 0] or [0.0 if others else value]
        return min(*known, value) * math.exp(-width), math.inf
    if others:
        logs, count = np.log(others), len(others)
        error = math.sqrt((count - 1) / count * float(((logs - logs.mean()) ** 2).sum()))
        width = math.hypot(width, float(scipy.special.stdtrit(count - 1, 0.5 + level / 2)) * error)
    return value * math.exp(-width), value * math.exp(width)


def _fit(losses: dict[float, float], curve: dict[float, float], start: float | None) -> float:
    """B_crit of the least squares of the logarithms of the shares; 0 or ∞ at the ends.

    A batch size that made less than half of the largest gain from the start has a share that is
    only a bound: the first steps gain mainly because the swing of the weights dies out, at every
    batch size. The second smallest one counts in any case.
    """
    sizes = np.array(list(losses))
    *shares, least = shares_of([*losses.values(), math.inf], curve)
    if len(sizes) == 1 or math.isnan(least):
        return math.nan
    target, size = np.log(shares[1:]), sizes[1:]
    # a share below all that were tried is only a bound
    open_end = target <= math.log(least) + 1e-9
    if start is not None:
        gains = start - np.array(list(losses.values()))
        open_end[1:] |= gains[2:] < gains.max() / 2

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
    return math.exp(scipy.optimize.minimize_scalar(misfit, bounds=ends, method="bounded").x)


def shares_of(losses: Sequence[float], curve: Mapping[float, float]) -> list[float]:
    """After which share of its samples the smallest batch size had these losses.

    Args:
        losses: that of the smallest batch size first, whose share is 1.
        curve: of the smallest batch size by the share of its samples.

    Returns:
        All nan where the loss does not fall. Where a shorter run ended below the longest one, by
        noise or because the loss falls no further, shares are relative to when it was there.
    """
    places, levels = np.log(sorted(curve)), np.array([curve[share] for share in sorted(curve)])
    levels = np.minimum.accumulate(levels)  # noise can make it rise
    if not levels[0] > levels[-1]:
        return [math.nan] * len(losses)
    found = np.exp(np.interp(-np.array(losses), -levels, places))
    return [min(float(share / found[0]), 1.0) for share in found]


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
