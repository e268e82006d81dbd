"""What would have been right: by plain training at every batch size and rate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from benchmarks import measure

from .fit import Cells, along_budget, along_gain, critical
from .problems import Problem
from .search import SHARES, Search, budget_of
from .store import Cell, Store

SHARES_OF_BUDGET = (0.1, 0.2, 0.4)  # where the target losses of runs from scratch are
SHARES_OF_GAIN = (0.7, 0.8, 0.9)  # and those of runs from checkpoints


def find(problem: Problem, seeds: Sequence[int], smallest: int, further: Sequence[int]) -> None:
    """Train what is not there yet; from checkpoints, batch sizes from the smallest on.

    Args:
        problem: what is trained.
        seeds, further: of all runs, and of runs from checkpoints alone.
        smallest: batch size of runs from checkpoints.
    """
    store = Store(problem)
    Search(problem, store, seeds).everything(smallest, further)
    store.facts["summary"] = {
        f"{start:g}": summary(problem, store, start) for start in starts(store)
    }
    store.save()


def starts(store: Store) -> list[float]:
    return [start for start in (0.0, *SHARES) if any(key[0] == start for key in store.cells)]


def summary(problem: Problem, store: Store, start: float) -> dict[str, Any]:
    """Best and largest stable rates by batch size, and the critical batch size."""
    budget, untrained = budget_of(problem, start), store.facts["untrained"]
    rows = {size: list(store.of(start, size).values()) for size in problem.batch_sizes}
    cells: Cells = {size: own for size, own in rows.items() if own}
    first = starting_loss(store, start)
    if start:
        losses = along_gain(cells, SHARES_OF_GAIN, budget, first)
    else:
        losses = along_budget(cells, SHARES_OF_BUDGET, budget)
    found = critical(cells, losses)
    return {
        "budget": budget,
        "loss": first,
        "critical": vars(found),
        "rates": {size: rates(own, budget, untrained, first) for size, own in cells.items()},
    }


def starting_loss(store: Store, start: float) -> float:
    """Mean over seeds of the loss at a checkpoint."""
    if not start:
        return float(store.facts["untrained"])
    losses = store.facts["checkpoints"][f"{start:g}"].values()
    return math.exp(sum(map(math.log, losses)) / len(losses))


def rates(cells: list[Cell], budget: int, untrained: float, first: float) -> dict[str, Any]:
    """Of one batch size. `stays` is the largest rate that does not end above the start."""
    good = [cell for cell in cells if cell.stable(budget, untrained)]
    bad = [cell.lr for cell in cells if cell not in good]
    if not good:
        return {"best": None, "loss": None, "stable": None, "unstable": min(bad), "stays": None}
    best = min(good, key=lambda cell: cell.loss(budget))
    above = [lr for lr in bad if lr > best.lr]
    stable = [cell.lr for cell in good if not above or cell.lr < min(above)]
    stays = [cell.lr for cell in good if cell.loss(budget) <= first]
    return {
        "best": best.lr,
        "loss": best.loss(budget),
        "stable": max(stable),
        "unstable": min(above, default=None),
        "stays": max(stays, default=None),
    }


def show(problems: Sequence[Problem], markdown: bool) -> None:
    """Tables of what was found so far."""
    sizes = [["problem", "from", "loss", "B_crit", "95 %", "misfit", "of each target"]]
    lrs = [
        ["problem", "from", "B", "best rate", "loss", "largest stable", "first unstable", "stays"]
    ]
    for problem in problems:
        store = Store(problem)
        for start in starts(store):
            try:
                found = summary(problem, store, start)
            except (KeyError, ValueError):
                continue  # not all there yet
            name, own = [problem.name, f"{start:g}"], found["critical"]
            sizes.append([
                *name, short(found["loss"]), short(own["value"]),
                f"{short(own['low'])} to {short(own['high'])}", f"{own['misfit']:.2f}",
                ", ".join(map(short, own["values"])),
            ])  # fmt: skip
            for size, row in found["rates"].items():
                keys = ("best", "loss", "stable", "unstable", "stays")
                lrs.append([*name, str(size), *(short(row[key]) for key in keys)])
    measure.show("critical batch size of training", sizes, markdown)
    measure.show("learning rates", lrs, markdown)


def short(value: float | None) -> str:
    return "–" if value is None or math.isnan(value) else f"{value:.3g}"
