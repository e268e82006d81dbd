"""Learning rates around a centre, and further ones where the best is at an end."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from ..sweeps.knee import brackets, gain, has_trained, with_lost
from ..training.record import Record, Run
from .trials import Trials

STEP = 2.0  # between two rates
WHOLE = "samples"  # the budget of runs that take all samples
SHARES = (2, 4, 8)  # parts of them, at the smallest batch size
REACH = 12  # rates beyond the others, to where runs begin to diverge
DOWN = 4  # of these, to see whether a smaller rate trains
CONSTANT = "late_loss"  # of batches in the last quarter of the steps: of a constant rate
AVERAGED = "averaged_loss"  # at the mean weights of the last half
MEAN_WEIGHTS = "at the mean weights of the last half"


@dataclass(frozen=True)
class Length:
    """How long runs are, and how many.

    Args:
        samples: of each run.
        seeds: orders of the samples.
        budget: the name of the length.
    """

    samples: int
    seeds: tuple[int, ...]
    budget: str = WHOLE

    def part(self, share: int) -> Length:
        """A part of the samples."""
        return Length(self.samples // share, self.seeds, f"1/{share} of the samples")

    def whole(self, batch_size: int) -> Length:
        """Whole steps at a batch size: then also at those that divide it, with equal samples."""
        return replace(self, samples=max(1, self.samples // batch_size) * batch_size)

    def runs(self, batch_size: int, lrs: Iterable[float]) -> list[Run]:
        """Runs of all seeds at these rates."""
        steps = max(1, self.samples // batch_size)
        return [Run(batch_size, lr, seed, self.budget, steps) for lr in lrs for seed in self.seeds]


def search(
    trials: Trials, batch_size: int, lrs: Iterable[float], length: Length, further: int
) -> list[Record]:
    """Runs at these rates; while the best one is an end, at a rate beyond it as well.

    Args:
        trials: what trains.
        batch_size: B.
        lrs: ε.
        length: of the runs.
        further: how many rates beyond the ends, at most; fewer where the budget is spent.
    """
    records = with_lost(trials.run(length.runs(batch_size, lrs)), averaged=True)
    for _ in range(further):
        beyond = _beyond(records)
        if beyond is None or not trials.can_pay(length.runs(batch_size, [beyond])):
            break
        records = _more(trials, batch_size, records, length, beyond)
    return records


def _more(
    trials: Trials, batch_size: int, records: Sequence[Record], length: Length, lr: float
) -> list[Record]:
    """These records and those of another rate."""
    return with_lost([*records, *trials.run(length.runs(batch_size, [lr]))], averaged=True)


def _beyond(records: Sequence[Record]) -> float | None:
    """The next rate, where the best by one of the losses is at an end."""
    lrs = sorted({record.run.lr for record in records})
    if best_rate(records, CONSTANT) in (None, lrs[0]):
        return lrs[0] / STEP
    return lrs[-1] * STEP if best_rate(records, AVERAGED) == lrs[-1] else None


def search_limit(
    trials: Trials, batch_size: int, records: list[Record], length: Length
) -> list[Record]:
    """These runs and further ones, until every seed has a rate that holds below one that diverges.

    Both are at most a factor of 2 apart then. Where no rate has trained yet, the smallest may have
    killed the network: up to `DOWN` smaller ones are tried as well. In all at most `REACH` further
    rates, fewer where the budget is spent.

    Args:
        trials, batch_size, length: as for `search`.
        records: runs at this batch size.
    """
    down = DOWN
    for _ in range(REACH):
        lr = _towards_limit(records)
        lowest = min(record.run.lr for record in records)
        if lr != lowest / STEP and down and _may_be_dead(records):
            lr, down = lowest / STEP, down - 1
        if lr is None or not trials.can_pay(length.runs(batch_size, [lr])):
            break
        records = _more(trials, batch_size, records, length, lr)
    return records


def _towards_limit(records: Sequence[Record]) -> float | None:
    """The next rate to try, None where all seeds are known."""
    found, lrs = brackets(records), [record.run.lr for record in records]
    if any(one.stable == 0 for one in found):
        return min(lrs) / STEP
    if any(math.isinf(one.diverged) for one in found):
        return max(lrs) * STEP
    widest = max(found, key=lambda one: one.diverged / one.stable)
    return widest.middle if widest.diverged > STEP * widest.stable * (1 + 1e-9) else None


def _may_be_dead(records: Sequence[Record]) -> bool:
    """Whether of a seed no rate has trained, and the smallest ended above its start."""
    trained = {record.run.seed for record in records if has_trained(record, averaged=True)}
    lowest = min(record.run.lr for record in records)
    return any(
        record.run.seed not in trained and not record.diverged and gain(record, averaged=True) < 0
        for record in records
        if record.run.lr == lowest
    )


def best_rate(records: Sequence[Record], loss: str) -> float | None:
    """The rate with the lowest mean loss over seeds, of those where every seed is stable."""
    means = {}
    for lr in sorted({record.run.lr for record in records}):
        own = [record for record in records if record.run.lr == lr]
        values = [getattr(record, loss) for record in own]
        if not any(record.diverged for record in own) and all(map(math.isfinite, values)):
            means[lr] = statistics.fmean(values)
    return min(means, key=lambda lr: means[lr]) if means else None


def best_rates(records: Sequence[Record]) -> tuple[float, float] | None:
    """The best rate by the late and the averaged losses; None where nothing is stable."""
    constant, averaged = (best_rate(records, loss) for loss in (CONSTANT, AVERAGED))
    return None if constant is None or averaged is None else (constant, averaged)


class SizeSearch:
    """The runs at several batch sizes, each around the rates that the nearest one lets expect.

    Args:
        trials: what trains.
        batch_size: the first one.
        lrs: ε there.
        factors: at the others, of the middle of the best ones at the nearest batch size before,
            times the ratio of the batch sizes to the power of `growth`.
        growth: 1 for linear, 1/2 for square-root scaling.
        length: of the runs; whole steps at every batch size.
        further: as for `search`.
        stability: whether to look for where runs begin to diverge as well.
    """

    def __init__(
        self,
        trials: Trials,
        batch_size: int,
        lrs: Sequence[float],
        factors: Sequence[float],
        growth: float,
        length: Length,
        further: int,
        stability: bool = False,
    ) -> None:
        self.records: list[Record] = []
        self.parts: list[Record] = []  # of the smallest batch size, with parts of the samples
        self._trials, self._length = trials, length
        self._first, self._factors, self._growth = (batch_size, lrs), factors, growth
        self._further, self._stability = further, stability
        self._best: dict[int, tuple[float, float]] = {}
        self._middles = {batch_size: math.sqrt(lrs[0] * lrs[-1])}

    def add(self, batch_size: int, further: int | None = None) -> None:
        """Runs at one more batch size, unless the budget is too small for it.

        Where no rate has held so far, they begin below the smallest one that was tried.

        Args:
            batch_size: B.
            further: in place of that of all.
        """
        trials, length = self._trials, self._length
        lrs = self._rates(batch_size)
        if not trials.can_pay(length.runs(batch_size, lrs)):
            return
        further = self._further if further is None else further
        records = search(trials, batch_size, lrs, length, further)
        if self._stability:
            records = search_limit(trials, batch_size, records, length)
        self.records += records
        best = best_rates(records)
        if best is not None:
            self._best[batch_size] = best
            self._middles[batch_size] = math.sqrt(best[0] * best[1])
        elif all(record.diverged for record in self.records):
            self._middles = {batch_size: min(record.run.lr for record in records) / STEP}

    def _rates(self, batch_size: int) -> list[float]:
        first, lrs = self._first
        if batch_size == first:
            return list(lrs)
        near = min(self._middles, key=lambda other: abs(math.log(other / batch_size)))
        middle = self._middles[near] * (batch_size / near) ** self._growth
        return [middle * factor for factor in self._factors]

    def can_add(self, batch_size: int) -> bool:
        """Whether the budget is enough for it, and for its parts where it is the smallest."""
        lrs = self._rates(batch_size)
        runs = self._length.runs(batch_size, lrs)
        if batch_size < min(self._best, default=0):
            runs += [run for part in _part_runs(self._length, batch_size, lrs) for run in part]
        return self._trials.can_pay(runs)

    def take_parts(self) -> None:
        """Shorter runs at the smallest batch size where a rate held.

        Their best rate may be a little larger.
        """
        if not self._best:
            return
        size = min(self._best)
        best = self._best[size]
        self.parts = [record for record in self.parts if record.run.batch_size != size]
        for runs in _part_runs(self._length, size, sorted({*best, STEP * best[1]})):
            if self._trials.can_pay(runs):
                self.parts += with_lost(self._trials.run(runs), averaged=True)


def _part_runs(length: Length, batch_size: int, lrs: Sequence[float]) -> list[list[Run]]:
    """The runs with parts of the samples, those of each part together."""
    shares = [share for share in SHARES if length.samples // share >= batch_size]
    return [length.part(share).runs(batch_size, lrs) for share in shares]
