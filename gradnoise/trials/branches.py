"""Branches: the runs of `gn.branch`, printed, drawn and read from their file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import SweepFileError
from ..training.ledger import read
from ..training.record import Record
from .picture import draw
from .results import BranchRuns
from .search import WHOLE
from .table import write
from .trials import TRACE


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

    def plot(self, path: str | Path | None = None) -> Any:
        """Losses after equal samples against the batch size, at the best rate of each, as a Figure.

        Args:
            path: where to save it as well.

        Raises:
            ImportError: matplotlib is not installed.
            ArgumentError: no batch size has a stable rate.
        """
        return draw(self, path)

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
        found = _complete(records, own["seeds"])
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


def _complete(records: list[Record], seeds: int) -> tuple[Record, ...]:
    """The records of runs that ended with all seeds, in order."""
    own = [record for record in records if record.run.seed < seeds]
    cells = [(r.run.budget, r.run.steps, r.run.batch_size, r.run.lr) for r in own]
    pairs = zip(own, cells, strict=True)
    return in_order([record for record, cell in pairs if cells.count(cell) == seeds])
