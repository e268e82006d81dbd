"""The learning rates at one batch size: around a centre, and further where the best is at an end."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..training.record import Record, Run
from .trials import Trials

STEP = 2.0  # between two rates


@dataclass(frozen=True)
class Length:
    """How long runs are, and how many.

    Args:
        budget: the name of the budget.
        samples: of each run.
        seeds: how many.
    """

    budget: str
    samples: int
    seeds: int

    def runs(self, batch_size: int, lrs: Iterable[float]) -> list[Run]:
        """Runs of all seeds at these rates."""
        steps = max(1, round(self.samples / batch_size))
        return [
            Run(batch_size, lr, seed, self.budget, steps)
            for lr in lrs
            for seed in range(self.seeds)
        ]


def search(
    trials: Trials,
    batch_size: int,
    lrs: Sequence[float],
    length: Length,
    further: int,
) -> list[Record]:
    """Runs at these rates; while the best one is an end, at a rate beyond it as well.

    Args:
        trials: what trains.
        batch_size: B.
        lrs: ε.
        length: of the runs.
        further: how many rates beyond the ends, at most.
    """
    records = trials.run(length.runs(batch_size, lrs))
    for _ in range(further):
        beyond = _beyond(records)
        if beyond is None:
            break
        records += trials.run(length.runs(batch_size, [beyond]))
    return records


def _beyond(records: Sequence[Record]) -> float | None:
    """The next rate, where the best by either loss is at an end."""
    lrs = sorted({record.run.lr for record in records})
    for name, end, factor in (("averaged_loss", lrs[-1], STEP), ("train_loss", lrs[0], 1 / STEP)):
        best = best_rate(records, name)
        if best is None:
            return lrs[0] / STEP
        if best == end:
            return end * factor
    return None


def best_rate(records: Sequence[Record], name: str) -> float | None:
    """The rate with the lowest mean loss over seeds, of those where every seed is stable."""
    means = {}
    for lr in sorted({record.run.lr for record in records}):
        own = [record for record in records if record.run.lr == lr]
        values = [getattr(record, name) for record in own]
        if not any(record.diverged for record in own) and all(map(math.isfinite, values)):
            means[lr] = statistics.fmean(values)
    return min(means, key=lambda lr: means[lr]) if means else None
