"""Branches: the runs of `gn.branch`, printed, drawn and read from their file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, overload

from ..errors import SweepFileError
from ..profiles.results import Results
from ..show.axes import plotted
from ..sweeps.knee import with_lost
from ..training.ledger import read
from ..training.record import Record
from .picture import branches
from .results import BranchRuns
from .search import WHOLE
from .table import write
from .trials import TRACE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Branches(BranchRuns):
    """Runs from one point of training, with equal samples at every batch size; `print` them.

    Learning rates are those of the optimizer's first parameter group, batch sizes in samples.

    Args:
        records: one per run; `averaged_loss` is the loss at the mean weights of its last half.
        settings: what all have in common, in words.
        vectorised: how many runs were one program; 0 where each was trained by itself.
        reason: why so.
        parts: runs of the smallest batch size with a part of the samples.
        lr, batch_size: ε₀ and B₀ of the optimizer that the runs start from.
        trace_cov: trΣ where the runs start, in the metric of the optimizer; None: not measured.
        drift: total step for one gradient in units of ε: 1/(1 - m), 1 for Adam in its metric.
        tolerance: of `largest_batch_size`.
        level: of the intervals.

    Source: as for `branch`.
    """

    @overload
    def plot(
        self,
        path: str | Path | None = None,
        *,
        predictions: Results | None = None,
        axes: None = None,
    ) -> Figure: ...
    @overload
    def plot(
        self, path: str | Path | None = None, *, predictions: Results | None = None, axes: Axes
    ) -> Axes: ...
    def plot(
        self,
        path: str | Path | None = None,
        *,
        predictions: Results | None = None,
        axes: Axes | None = None,
    ) -> Figure | Axes:
        """Losses after equal samples against the batch size, at the best rate of each.

        Args:
            path: where to save it as well; the suffix gives the format.
            predictions: a profile whose noise scales are drawn in.
            axes: draw into these matplotlib Axes.

        Returns:
            The new matplotlib Figure; or `axes` where they were given.

        Raises:
            ArgumentError: no batch size has a stable rate; or the file cannot be written, or not
                in that format.
            ImportError: matplotlib is not installed.
        """
        return plotted(lambda: branches(self, predictions=predictions, axes=axes), path, axes)

    @classmethod
    def load(cls, path: str | Path) -> Branches:
        """The finished runs of a file that `gn.branch` or `gn.advise` writes.

        Of runs that were cut off, pairs of batch size and rate with fewer seeds than others are
        left out; so are the trials of `gn.advise` on further seeds.

        Raises:
            SweepFileError: no such file, or not of branches.
        """
        header, how, records = read(path)
        try:
            own = {name: header[name] for name in ("lr", "batch_size", "drift", "seeds")}
        except KeyError as error:
            raise SweepFileError(
                f"{path} is not of branches: its first line has no {error}. A sweep is read by "
                f"gn.Sweep.load"
            ) from error
        found = in_order(with_lost(_complete(records, own["seeds"]), averaged=True))
        return cls(
            tuple(record for record in found if record.run.budget == WHOLE),
            header,
            *how,
            tuple(record for record in found if record.run.budget != WHOLE),
            own["lr"],
            own["batch_size"],
            header["start"].get(TRACE),
            own["drift"],
            header.get("tolerance", cls.tolerance),
            header.get("level", cls.level),
        )

    def __str__(self) -> str:
        return write(self)


def in_order(records: list[Record]) -> tuple[Record, ...]:
    """By batch size, learning rate and seed."""
    return tuple(sorted(records, key=lambda r: (r.run.batch_size, r.run.lr, r.run.seed)))


def _complete(records: list[Record], seeds: int) -> list[Record]:
    """The records of runs that ended with all seeds."""
    own = [record for record in records if record.run.seed < seeds]
    cells = [(r.run.budget, r.run.steps, r.run.batch_size, r.run.lr) for r in own]
    pairs = zip(own, cells, strict=True)
    return [record for record, cell in pairs if cells.count(cell) == seeds]
