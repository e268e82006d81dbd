"""Results of one problem as JSON; what is there is not run again."""

from __future__ import annotations

import datetime
import json
import math
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import versions

from .problems import Problem
from .train import Trained

RESULTS = Path("benchmarks/results/advice")
LEAST = 1e-12  # losses below are rounding errors
KEPT = 0.9  # a run that ends above this factor times the untrained loss was not trained


@dataclass
class Cell:
    """Runs of several seeds at one batch size and rate.

    Args:
        start: share of the reference run after which they begin, 0 from scratch.
        samples: at which losses are recorded, counted from the start.
        losses, peaks: by seed. A run that diverged has fewer losses than `samples`.
    """

    start: float
    batch_size: int
    lr: float
    samples: list[int]
    losses: dict[int, list[float]] = field(default_factory=dict)
    peaks: dict[int, float] = field(default_factory=dict)

    def add(self, seed: int, run: Trained) -> None:
        self.losses[seed] = [float(f"{loss:.5g}") for loss in run.losses]
        self.peaks[seed] = float(f"{min(run.peak, 1e30):.4g}")

    def curve(self, seeds: Iterable[int]) -> np.ndarray:
        """Geometric mean of the losses of these seeds, NaN after one of them diverged."""
        rows = [
            self.losses[seed] + [math.nan] * (len(self.samples) - len(self.losses[seed]))
            for seed in seeds
        ]
        return np.exp(np.log(np.maximum(rows, LEAST)).mean(0))

    def loss(self, budget: int) -> float:
        """Mean over the seeds after `budget` samples; infinite where one diverged."""
        value = self.curve(self.losses)[self.samples.index(budget)]
        return float(value) if math.isfinite(value) else math.inf

    def stable(self, budget: int, untrained: float) -> bool:
        """Whether every seed ends below 0.9 of the untrained loss."""
        at = self.samples.index(budget)
        return all(
            len(losses) > at and losses[at] < KEPT * untrained for losses in self.losses.values()
        )


def origin() -> dict[str, str]:
    """The command, the versions and the date of results."""
    return {
        "command": "python -m benchmarks.advice " + " ".join(sys.argv[1:]),
        "versions": versions("numpy", "scikit-learn") + f", Python {sys.version[:6]}",
        "date": datetime.date.today().isoformat(),
    }


class Store:
    """Cells by (start, batch size, rate), written to a file whenever one was trained."""

    def __init__(self, problem: Problem, folder: Path = RESULTS) -> None:
        self.path = folder / f"{problem.name}.json"
        self.facts: dict[str, Any] = {"problem": problem.name, "budget": problem.budget}
        self.cells: dict[tuple[float, int, float], Cell] = {}
        if self.path.exists():
            self.facts = json.loads(self.path.read_text())
            for entry in self.facts.pop("cells"):
                for name in ("losses", "peaks"):
                    entry[name] = {int(seed): value for seed, value in entry[name].items()}
                cell = Cell(**entry)
                self.cells[cell.start, cell.batch_size, cell.lr] = cell

    def of(self, start: float, batch_size: int) -> dict[float, Cell]:
        """Cells by rate, in increasing order."""
        found = {key[2]: cell for key, cell in self.cells.items() if key[:2] == (start, batch_size)}
        return dict(sorted(found.items()))

    def save(self) -> None:
        self.facts |= origin()
        cells = [vars(self.cells[key]) for key in sorted(self.cells)]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        lines = ",\n".join(json.dumps(cell, separators=(",", ":")) for cell in cells)
        head = json.dumps(self.facts, indent=1)[:-2]
        self.path.write_text(f'{head},\n "cells": [\n{lines}\n]}}\n')
