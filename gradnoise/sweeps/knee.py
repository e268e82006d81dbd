"""The largest stable learning rates of a grid, and the critical batch size B_c fitted to them."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy

from ..errors import ArgumentError
from ..statistics.estimate import Estimate, Status
from ..training.divergence import KEPT
from ..training.record import Record

LOST = 0.2  # of the gain of a smaller ε: a run that goes on and gains less is lost
LEAST_SPREAD = 0.01  # of ln ε, so that equal brackets do not make it zero
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(11)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()


@dataclass(frozen=True)
class Bracket:
    """Between which learning rates the runs of one batch size and seed begin to diverge.

    Args:
        batch_size, seed: B and the seed.
        stable: the largest ε of the grid below the smallest that diverged; 0 where none is.
        diverged: the smallest that diverged; ∞ where none did.
    """

    batch_size: int
    seed: int
    stable: float
    diverged: float

    @property
    def middle(self) -> float:
        """The geometric middle, or the end that there is; nan where there is none."""
        if self.stable > 0 and math.isfinite(self.diverged):
            return math.sqrt(self.stable * self.diverged)
        return self.stable or (self.diverged if math.isfinite(self.diverged) else math.nan)


def with_lost(records: Sequence[Record], averaged: bool = False) -> list[Record]:
    """The runs, where those that are lost although a smaller learning rate trains are diverged too.

    A network whose units die in one large step ends at the loss of guessing, which may be near its
    start. A smaller ε of the same batch size, seed and budget shows it, if that gains: if it ends
    below 0.9 of the start. From a fresh model a run is lost that does not gain as much. From a
    trained model, where the noise of a large ε takes some of the gain, a run is lost that gains
    less than a fifth of what a smaller ε does, by the losses at averaged weights.

    Args:
        records: the runs.
        averaged: whether they go on from a trained model and have a loss at averaged weights.
    """
    lost, best = set(), dict[tuple[Any, ...], float]()
    for record in sorted(records, key=lambda each: each.run.lr):
        if record.diverged:
            continue
        kind, own = _kind(record), gain(record, averaged)
        if kind in best and own < (LOST * best[kind] if averaged else _enough(record)):
            lost.add(record.run)
        elif has_trained(record, averaged):
            best[kind] = max(best.get(kind, 0.0), own)
    return [replace(r, diverged=True) if r.run in lost else r for r in records]


def gain(record: Record, averaged: bool) -> float:
    """By how much the loss fell in a run: at averaged weights, or at the last ones."""
    end = record.averaged_loss if averaged else record.train_loss
    assert end is not None
    return record.start_loss - end


def has_trained(record: Record, averaged: bool) -> bool:
    """Whether a run ended below 0.9 of its start; see `with_lost`."""
    return not record.diverged and gain(record, averaged) >= _enough(record)


def _enough(record: Record) -> float:
    return (1 - KEPT) * abs(record.start_loss)  # it may be negative


def _kind(record: Record) -> tuple[Any, ...]:
    return record.run.batch_size, record.run.seed, record.run.budget, record.run.steps


def brackets(records: Sequence[Record]) -> list[Bracket]:
    """One for every batch size and seed, in this order."""
    runs: dict[tuple[int, int], list[Record]] = {}
    for record in records:
        runs.setdefault((record.run.batch_size, record.run.seed), []).append(record)
    found = []
    for (batch_size, seed), own in sorted(runs.items()):
        diverged = min((r.run.lr for r in own if r.diverged), default=math.inf)
        stable = max((r.run.lr for r in own if r.run.lr < diverged), default=0.0)
        found.append(Bracket(batch_size, seed, stable, diverged))
    return found


@dataclass(frozen=True)
class Knee:
    """The critical batch size B_c in ε*(B) = ε_∞/(1 + B_c/B), the largest stable ε.

    Args:
        saturation: ε_∞, the limit of ε*(B) at large B, in parameter²/loss.
        batch_size: B_c in samples, where ε*(B) is ε_∞/2; its interval is open where the grid does
            not determine it.
        spread: standard deviation of ln ε* between seeds and around the curve.

    Source: critical batch size, McCandlish et al. 2018 (arXiv:1812.06162); the fit is ours
    (docs/sweep.md).
    """

    saturation: Estimate
    batch_size: Estimate
    spread: float

    def lr(self, batch_size: float) -> float:
        """ε*(B)."""
        return float(self.saturation) / (1 + float(self.batch_size) / batch_size)


def fit_knee(found: Sequence[Bracket], level: float = 0.95) -> Knee:
    """The most likely critical batch size and ε_∞, with profile-likelihood intervals.

    ln ε* of a run is Gaussian around ln ε_∞ - ln(1 + B_c/B), with one unknown spread between seeds
    and one of batch sizes around the curve; only its bracket is observed. The interval of one
    parameter is where the maximum over the others is within half of t² of the largest (Wilks), t
    Student's quantile for the number of batch sizes less two.

    Args:
        found: brackets of at least three batch sizes.
        level: coverage of the intervals.

    Raises:
        ArgumentError: fewer than three batch sizes, or no batch size with both a stable and a
            diverged run.
    """
    sizes = {bracket.batch_size for bracket in found}
    closed = [b for b in found if b.stable > 0 and math.isfinite(b.diverged)]
    if len(sizes) < 3 or not closed:
        raise ArgumentError(
            f"the fit of B_c needs three batch sizes with stable and with diverged runs; got "
            f"{len(sizes)} batch sizes and {len(closed)} brackets with both. Add `batch_sizes`, or "
            f"`lrs` further apart"
        )
    return _fitted(tuple(found), level)


@functools.lru_cache(maxsize=64)
def _fitted(found: tuple[Bracket, ...], level: float) -> Knee:
    likelihood = _Likelihood.of(found)
    best = likelihood.best()
    freedom = max(len({bracket.batch_size for bracket in found}) - 2, 1)
    drop = float(scipy.special.stdtrit(freedom, 0.5 + level / 2)) ** 2 / 2
    ends = [likelihood.interval(best, place, drop) for place in (0, 1)]
    saturation, knee = (
        _estimate(math.exp(best[place]), ends[place], level, len(found)) for place in (0, 1)
    )
    return Knee(saturation, knee, math.hypot(*(LEAST_SPREAD + np.exp(best[2:]))))


def _estimate(value: float, ends: tuple[float, float], level: float, runs: int) -> Estimate:
    low, high = map(math.exp, ends)
    low, high = (0.0 if low < _SMALL else low), (math.inf if high > 1 / _SMALL else high)
    status = Status.RESOLVED if low > 0 and math.isfinite(high) else Status.BEYOND_GRID
    return Estimate(value, low, high, level, math.nan, runs, status)


_SMALL = 1e-7


@dataclass(frozen=True)
class _Likelihood:
    """The likelihood of (ln ε_∞, ln B_c, ln σ, ln τ), from brackets of ln ε*.

    σ is the standard deviation between seeds, τ that of batch sizes around the curve, which is
    only approximate. Their deviations are integrated over by Gauss-Hermite quadrature.
    """

    sizes: Any
    low: Any
    high: Any
    groups: Any  # one-hot, of runs by batch size

    @classmethod
    def of(cls, found: Sequence[Bracket]) -> _Likelihood:
        with np.errstate(divide="ignore"):
            low, high = (
                np.log([getattr(b, name) for b in found]) for name in ("stable", "diverged")
            )
        sizes = np.array([b.batch_size for b in found], dtype=float)
        return cls(sizes, low, high, (np.unique(sizes)[:, None] == sizes).astype(float))

    def deviance(self, point: Any) -> float:
        """-ln of the likelihood."""
        level, knee, *spreads = point
        curve = level - np.logaddexp(0.0, knee - np.log(self.sizes))
        within, between = (LEAST_SPREAD + np.exp(np.minimum(x, 5.0)) for x in spreads)
        moved = curve + between * _NODES[:, None]  # [nodes, runs]
        upper, lower = (self.high - moved) / within, (self.low - moved) / within
        swap = lower > 0  # the difference of two tails, where it keeps its digits
        upper, lower = np.where(swap, -lower, upper), np.where(swap, -upper, lower)
        first, second = scipy.special.log_ndtr(upper), scipy.special.log_ndtr(lower)
        inside = first + np.log1p(-np.exp(np.minimum(second - first, -1e-15)))
        sums = scipy.special.logsumexp(inside @ self.groups.T, b=_WEIGHTS[:, None], axis=0)
        penalty = 0.02 * sum(
            (x + 2) ** 2 for x in spreads
        )  # a weak prior, where the data do not determine them
        return float(-sums.sum() + penalty)

    def best(self) -> Any:
        ends = np.stack([self.low, self.high])
        known = np.where(np.isfinite(ends), ends, ends[::-1])
        top = float(known[np.isfinite(known)].max())
        starts = [(top, math.log(size), -1.5, -2.0) for size in np.unique(self.sizes)[::2]]
        found = [_minimum(self.deviance, start) for start in starts]
        return min(found, key=lambda each: each[1])[0]

    def interval(self, best: Any, place: int, drop: float) -> tuple[float, float]:
        """Where the profile of one parameter has fallen by `drop`, on both sides."""
        limit = self.deviance(best) + drop

        def excess(value: float, start: Any) -> tuple[float, Any]:
            def others(free: Any) -> float:
                return self.deviance(np.insert(free, place, value))

            point, lowest = _minimum(others, np.delete(start, place))
            return lowest - limit, np.insert(point, place, value)

        return _end(excess, best, place, -1), _end(excess, best, place, +1)


def _end(excess: Callable[..., Any], best: Any, place: int, sign: int) -> float:
    inside, point, step = float(best[place]), best, 0.05
    while abs(inside - best[place]) < 20:
        outside = inside + sign * step
        found, moved = excess(outside, point)
        if found > 0:
            break
        inside, point, step = outside, moved, 1.5 * step
    else:
        return sign * 100.0
    for _ in range(10):
        middle = (inside + outside) / 2
        found, moved = excess(middle, point)
        if found > 0:
            outside = middle
        else:
            inside, point = middle, moved
    return inside


def _minimum(function: Callable[[Any], float], start: Any) -> tuple[Any, float]:
    found = scipy.optimize.minimize(
        function, np.asarray(start), method="Nelder-Mead",
        options={"xatol": 1e-4, "fatol": 1e-5, "maxiter": 1000},
    )  # fmt: skip
    return found.x, float(found.fun)
