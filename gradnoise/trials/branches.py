"""Branches: short runs at several batch sizes from one point of training, and what they say."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..statistics.estimate import Estimate
from ..sweeps.runs import Runs
from ..training.record import Record
from .critical import critical_batch_size, largest_within

WHOLE = "samples"  # the budget of runs that take all samples of a branch


@dataclass(frozen=True)
class Branches(Runs):
    """Runs from one point of training, with equal samples at every batch size.

    Learning rates are those of the optimizer's first parameter group, batch sizes in samples.

    Args:
        records: one per run; `averaged_loss` is the loss at the mean weights of its last half.
        settings: what all have in common, in words.
        vectorised: how many runs were one program; 0 where each was trained by itself.
        reason: why so.
        parts: runs of the smallest batch size with a part of the samples.
        lr, batch_size: ε₀ and B₀ of the optimizer that the runs start from.
        scaling: "linear", "sqrt" or "none": how ε follows B.
        tolerance: of `largest_batch_size`.
        level: of the intervals.

    Source: as for `branch`.
    """

    parts: tuple[Record, ...] = ()
    lr: float = math.nan
    batch_size: int = 0
    scaling: str = "linear"
    tolerance: float = 0.05
    level: float = 0.95

    @property
    def start_loss(self) -> float:
        """L where the runs start."""
        return self.records[0].start_loss

    @property
    def samples(self) -> int:
        """How many samples gradients were taken of, in all runs together."""
        return sum(
            (r.run.steps if r.stopped is None else r.stopped) * r.run.batch_size
            for r in (*self.records, *self.parts)
        )

    @property
    def critical_batch_size(self) -> Estimate:
        """B_crit, in samples: a run takes twice the fewest samples and twice the fewest steps.

        By E(B) = E_min(1 + B/B_crit) from the losses at averaged weights, with the best of the
        rates at every batch size (McCandlish et al. 2018, arXiv:1812.06162).
        """
        losses = _losses(self)
        curve = {1.0: losses[min(losses)]}
        whole = {r.run.steps for r in self.records if r.run.batch_size == min(losses)}.pop()
        for budget in sorted({record.run.budget for record in self.parts}):
            own = tuple(record for record in self.parts if record.run.budget == budget)
            (found,) = _losses(Runs(own, {})).values()
            curve[own[0].run.steps / whole] = found
        return critical_batch_size(losses, curve, level=self.level)

    @property
    def largest_batch_size(self) -> Estimate:
        """The largest B whose loss is within `tolerance` of the lowest after equal samples."""
        return largest_within(_losses(self), self.tolerance, level=self.level)


def _losses(runs: Runs) -> dict[float, np.ndarray]:
    """Losses at averaged weights by batch size, an entry per seed, at the best ε."""
    found = {}
    for size, best in runs.best("averaged_loss").items():
        own = [r for r in runs.records if (r.run.batch_size, r.run.lr) == (size, best.lr)]
        ordered = sorted(own, key=lambda r: r.run.seed)
        found[float(size)] = np.array([r.averaged_loss for r in ordered])
    return found
