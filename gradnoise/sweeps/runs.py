"""The result of a sweep: its runs, the largest stable and the best ε, the critical batch size."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

from ..errors import ArgumentError
from ..files.json import encode
from ..statistics.estimate import Estimate, Status
from ..training.record import Record
from .knee import Bracket, Knee, brackets, fit_knee

AnyRuns = TypeVar("AnyRuns", bound="Runs")
LOSSES = ("train_loss", "test_loss", "late_loss", "averaged_loss")


@dataclass(frozen=True)
class Best:
    """The best learning rate of one batch size.

    Args:
        batch_size, lr: B and ε.
        value: mean over the seeds of what was asked for.
        stderr: of that mean; nan of one seed.
        at_edge: whether it is the smallest or largest ε of the grid, so that the best may lie
            beyond.
    """

    batch_size: int
    lr: float
    value: float
    stderr: float
    at_edge: bool


@dataclass(frozen=True)
class Runs:
    """The runs of a sweep and what follows from them.

    Learning rates are in parameter²/loss, batch sizes in samples.

    Args:
        records: one per run.
        settings: what all have in common, in words.
        vectorised: how many runs were one program; 0 where each was trained by itself. For a
            sweep in several calls, the number of the last call that trained.
        reason: of `vectorised`: what prevents one program, or the time of a step both ways.
    """

    records: tuple[Record, ...]
    settings: dict[str, Any]
    vectorised: int = 0
    reason: str = ""

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The table, ready for a data frame: a dict per run."""
        return [record.row() for record in self.records]

    @property
    def batch_sizes(self) -> list[int]:
        """B, ascending."""
        return sorted({record.run.batch_size for record in self.records})

    @property
    def lrs(self) -> list[float]:
        """ε, ascending."""
        return sorted({record.run.lr for record in self.records})

    def under(self: AnyRuns, budget: str) -> AnyRuns:
        """The runs of one budget, "epochs" or "steps", where both were swept."""
        kept = tuple(record for record in self.records if record.run.budget == budget)
        if not kept:
            raise ArgumentError(f"no run has the `budget` {budget!r}; there are {self._budgets}")
        return replace(self, records=kept)

    @property
    def _budgets(self) -> list[str]:
        return sorted({record.run.budget for record in self.records})

    def brackets(self) -> list[Bracket]:
        """Between which ε divergence begins, for every batch size and seed."""
        self._check_one_budget()
        return brackets(self.records)

    def largest_stable(self) -> dict[int, float]:
        """Per batch size the largest ε at which, and below which, no seed diverged; 0 if none."""
        found: dict[int, float] = {}
        for bracket in self.brackets():
            so_far = found.get(bracket.batch_size, math.inf)
            found[bracket.batch_size] = min(so_far, bracket.stable)
        return found

    def stability_limit(self) -> dict[int, Estimate]:
        """Per batch size the ε at which runs begin to diverge.

        The geometric mean over seeds of the middle between the largest ε that holds and the
        smallest that diverges. The interval is what was tried: its lower end is the largest ε at
        which, and below which, no seed diverged, its upper end the ε by which every seed has; it
        has no `level` (how often it holds the limit of training: docs/advice.md). Where a seed has
        no such ε above or below, there is no value: `gn.branch(..., stability=True)` looks for
        them.
        """
        found: dict[int, Estimate] = {}
        own = self.brackets()
        for size in self.batch_sizes:
            seeds = [bracket for bracket in own if bracket.batch_size == size]
            low = min(bracket.stable for bracket in seeds)
            high = max(bracket.diverged for bracket in seeds)
            known = low > 0 and math.isfinite(high)
            middle = statistics.geometric_mean(b.middle for b in seeds) if known else math.nan
            status = Status.RESOLVED if known else Status.BEYOND_GRID
            found[size] = Estimate(middle, low, high, math.nan, math.nan, len(seeds), status)
        return found

    def best(self, by: str = "train_loss", largest: bool | None = None) -> dict[int, Best]:
        """Per batch size the ε with the best mean over seeds, of runs that did not diverge.

        None of a batch size where every ε has the same values: then nothing is trained.

        Args:
            by: "train_loss", "test_loss", in branches "late_loss" or "averaged_loss", or the name
                of a metric.
            largest: whether large values are good; by default for metrics alone.

        Raises:
            ArgumentError: nothing of that name was measured, or two budgets are mixed.
        """
        self._check_one_budget()
        up = by not in LOSSES if largest is None else largest
        found = {}
        for size in self.batch_sizes:
            means = {
                lr: values
                for lr in self.lrs
                if (values := self._values(size, lr, by)) and all(map(math.isfinite, values))
            }
            if not means or _all_the_same(means.values()):
                continue
            sign = 1 if up else -1
            lr = max(means, key=lambda each: sign * statistics.fmean(means[each]))
            values = means[lr]
            several = len(values) > 1
            stderr = statistics.stdev(values) / math.sqrt(len(values)) if several else math.nan
            tried = {r.run.lr for r in self.records if r.run.batch_size == size}
            edge = lr in (min(tried), max(tried))
            found[size] = Best(size, lr, statistics.fmean(values), stderr, edge)
        return found

    def fit(self, level: float = 0.95) -> Knee:
        """The critical batch size B_c of ε*(B) = ε_∞/(1 + B_c/B); see `fit_knee`.

        Raises:
            ArgumentError: too few batch sizes with stable and diverged runs.
        """
        return fit_knee(self.brackets(), level)

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values that JSON can hold; infinities as strings."""
        records = [encode(asdict(record)) for record in self.records]
        own = {"vectorised": self.vectorised, "reason": self.reason}
        return {"settings": encode(self.settings), **own, "records": records}

    def _values(self, size: int, lr: float, by: str) -> list[float]:
        own = [r for r in self.records if r.run.batch_size == size and r.run.lr == lr]
        values = []
        for record in own:
            row = record.row()
            if record.diverged:
                return []
            if row.get(by) is None:
                names = sorted(name for name, value in row.items() if isinstance(value, float))
                raise ArgumentError(f"`by` = {by!r} was not measured; there are {names}")
            values.append(row[by])
        return values

    def _check_one_budget(self) -> None:
        if len(self._budgets) > 1:
            raise ArgumentError(
                "these runs have two budgets; choose one: sweep.under('epochs') or "
                "sweep.under('steps')"
            )


def _all_the_same(values: Iterable[list[float]]) -> bool:
    """Whether several learning rates have exactly the same values."""
    several = list(values)
    return len(several) > 1 and all(own == several[0] for own in several)
