"""Short runs at several batch sizes from one point of training, and what follows from them."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..errors import ArgumentError
from ..files.json import encode
from ..statistics.estimate import Estimate
from ..sweeps.runs import Runs
from ..training.record import Record
from .critical import (
    BY_SHARES,
    SCHEDULED,
    Fall,
    Losses,
    agree,
    critical_batch_size,
    fall_of,
    largest_within,
    shares_of,
)
from .search import AVERAGED, best_rate
from .trials import SCHEDULE, samples_of

OWN = ("lr", "batch_size", "trace_cov", "drift", "tolerance", "level")


@dataclass(frozen=True)
class BranchRuns(Runs):
    """What follows from the runs of `Branches`, which has the arguments."""

    parts: tuple[Record, ...] = ()
    lr: float = math.nan
    batch_size: int = 0
    trace_cov: float | None = None
    drift: float = 1.0
    tolerance: float = 0.05
    level: float = 0.95

    @property
    def start_loss(self) -> float:
        """L where the runs start; nan where there are none."""
        return self.records[0].start_loss if self.records else math.nan

    @property
    def schedule(self) -> str | None:
        """How the learning rate of the runs changes, None where it stays constant."""
        return self.settings.get(SCHEDULE)

    @property
    def samples(self) -> int:
        """How many samples gradients were taken of, in all runs together."""
        return samples_of((*self.records, *self.parts))

    @property
    def samples_each(self) -> int:
        """The samples of a run; those of the shorter `parts` are fewer. 0 where there are none."""
        return max((r.run.steps * r.run.batch_size for r in self.records), default=0)

    @property
    def critical_batch_size(self) -> Estimate:
        """B_crit, in samples: a run takes twice the fewest samples and twice the fewest steps.

        From the samples that the batch sizes need, E(B) = E_min(1 + B/B_crit) (McCandlish et al.
        2018, arXiv:1812.06162), and from ε·trΣ/D with D the fall of the loss per e-fold of the
        samples, both at averaged weights. The value is their geometric mean; with a schedule the
        first alone, at the end of the runs. A batch size that made less than half of the largest
        gain tells only a bound. The interval has the spread between seeds and that of training
        around such values (docs/advice.md).

        It is that of training as long as these runs: take as many `samples` as you mean to train
        on, or as many as you can, rather than many seeds.
        """
        losses, curve, fall = self._told()
        factor = BY_SHARES if self.schedule is None else SCHEDULED
        return critical_batch_size(
            losses, curve, fall, start=self.start_loss, factor=factor, level=self.level
        )

    @property
    def agrees(self) -> bool:
        """Whether both ways to `critical_batch_size` agree within a factor of 2.

        False where there is one only, as with a schedule.
        """
        return agree(*self._told(), self.start_loss)

    def _told(self) -> tuple[Losses, Losses, Fall | None]:
        losses, best = self.losses(AVERAGED), self.best(AVERAGED)
        fall = None
        if self.trace_cov is not None and best and self.schedule is None:
            fall = Fall(self.trace_cov, max(one.lr for one in best.values()) * self.drift)
        return losses, self._curve(AVERAGED), fall

    @property
    def largest_batch_size(self) -> Estimate:
        """The largest B whose loss is within `tolerance` of the lowest after equal samples.

        By the losses at averaged weights; between batch sizes interpolated in ln B.
        """
        return largest_within(self.losses(AVERAGED), self.tolerance, level=self.level)

    def losses(self, loss: str = "averaged_loss") -> dict[float, np.ndarray]:
        """Losses by batch size, an entry per seed, at the rate with the lowest mean.

        Args:
            loss: "averaged_loss"; "late_loss" of the batches in the last quarter of the steps; or
                "train_loss" at the last weights.

        Raises:
            ArgumentError: no batch size has a stable rate.
        """
        found = _losses(self.records, loss)
        if not found:
            raise ArgumentError(
                "every run of these branches diverged: give smaller `factors` or `batch_sizes`"
            )
        return found

    def shares(self, loss: str = "averaged_loss") -> dict[int, float]:
        """Which share of the samples is enough at the smallest batch size for the loss of each.

        1/share is the factor in samples that a batch size costs. 1 at the smallest; nan where the
        loss does not fall; at least the smallest part that was run.

        Args:
            loss: as for `losses`.
        """
        curve = {share: float(values.mean()) for share, values in self._curve(loss).items()}
        means = {int(size): float(values.mean()) for size, values in self.losses(loss).items()}
        return dict(zip(means, shares_of(list(means.values()), curve), strict=True))

    @property
    def smallest_share(self) -> float:
        """The smallest share of the samples that was run: `shares` are not below it."""
        curve = {share: float(values.mean()) for share, values in self._curve(AVERAGED).items()}
        return shares_of([curve[1.0], math.inf], curve)[1]

    @property
    def fall(self) -> float:
        """D = -dL/d ln E, the fall of the loss per e-fold of the samples, at the smallest B."""
        return fall_of({share: float(own.mean()) for share, own in self._curve(AVERAGED).items()})

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values that JSON can hold; infinities as strings."""
        own = {name: getattr(self, name) for name in OWN}
        parts = [encode(asdict(record)) for record in self.parts]
        return {**super().to_dict(), **encode(own), "parts": parts}

    def _curve(self, loss: str) -> dict[float, np.ndarray]:
        """Losses at the smallest batch size by the share of its samples."""
        losses = self.losses(loss)
        smallest = int(min(losses))
        curve = {1.0: losses[smallest]}
        whole = next(r.run.steps for r in self.records if r.run.batch_size == smallest)
        parts = [record for record in self.parts if record.run.batch_size == smallest]
        for budget in {record.run.budget for record in parts}:
            own = [record for record in parts if record.run.budget == budget]
            for found in _losses(own, loss).values():
                curve[own[0].run.steps / whole] = found
        return curve


def _losses(records: tuple[Record, ...] | list[Record], loss: str) -> dict[float, np.ndarray]:
    found = {}
    for size in sorted({record.run.batch_size for record in records}):
        own = [record for record in records if record.run.batch_size == size]
        best = best_rate(own, loss)
        if best is not None:
            seeds = sorted((r for r in own if r.run.lr == best), key=lambda r: r.run.seed)
            found[float(size)] = np.array([getattr(record, loss) for record in seeds])
    return found
