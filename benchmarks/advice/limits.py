"""Where `gn.branch` says that runs begin to diverge from a checkpoint, held to plain training."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import gradnoise as gn
from benchmarks import measure

from .problems import ALL, Problem
from .search import CHECKPOINTS, SHARES, Search, budget_of
from .stability_tables import RESULTS, trained
from .store import Store
from .train import restored

RUNS = CHECKPOINTS / "limits"  # kept, so that they can be read in another way
SEEDS = 3
SAME = 1.001  # rates of both grids that differ by less are equal


def hold(problem: Problem) -> Iterator[dict[str, Any]]:
    """Branches at every checkpoint of the reference run, from the rate in use."""
    search = Search(problem, Store(problem), [0])
    for share in SHARES:
        size, lr = problem.reference
        state = restored(problem, search.checkpoint(share, 0), lr)
        RUNS.mkdir(parents=True, exist_ok=True)
        branches = gn.branch(
            state.model, problem.loss_fn, search.data, state.optimizer, batch_size=size,
            batch_sizes=problem.batch_sizes, samples=budget_of(problem, share), factors=[1.0],
            further=0, stability=True, seeds=SEEDS, path=RUNS / f"{problem.name}_{share:g}.jsonl",
        )  # fmt: skip
        limits = branches.stability_limit()
        yield {
            "problem": problem.name, "start": share, "samples": branches.samples,
            "limits": {
                str(size): [x if math.isfinite(x) else None for x in (float(e), e.low, e.high)]
                for size, e in limits.items()
            },
        }  # fmt: skip


@dataclass(frozen=True)
class Held:
    """One batch size from one checkpoint.

    Args:
        problem, start, batch_size: which.
        told, low, high: by branches; told is 0 where an end is open.
        good, bad: the largest rate that kept the loss in training, and the next; None: not tried.
    """

    problem: str
    start: float
    batch_size: int
    told: float
    low: float
    high: float
    good: float | None
    bad: float | None

    @property
    def ratio(self) -> float:
        """Told over the middle of the trained bracket; 0 where one of them is not known."""
        if not (self.good and self.bad):
            return 0.0
        return self.told / math.sqrt(self.good * self.bad)

    @property
    def right(self) -> bool:
        return 0.5 / SAME <= self.ratio <= 2 * SAME

    @property
    def inside(self) -> bool:
        """Whether the middle of the trained bracket is in the interval."""
        if not self.ratio:
            return False
        return self.low / SAME <= self.told / self.ratio <= self.high * SAME


def _held() -> Iterator[Held]:
    for point in json.loads((RESULTS / "limits.json").read_text())["points"]:
        problem, start = ALL[point["problem"]], point["start"]
        for size, (told, low, high) in point["limits"].items():
            ends = low or 0.0, math.inf if high is None else high
            rates = trained(problem, start, int(size), Store(problem))
            yield Held(problem.name, start, int(size), told or 0.0, *ends, *rates)


def show(markdown: bool) -> None:
    """How often it is right, by problem and by batch size; and every case that is not."""
    every = list(_held())
    groups = {name: [c for c in every if c.problem == name] for name in ALL}
    groups |= {
        f"B = {size}": [c for c in every if c.batch_size == size]
        for size in sorted({c.batch_size for c in every})
    }
    groups["all"] = every
    head = ["", "batch sizes", "trained", "within 2", "in the interval", "told/trained"]
    rows = [head, *(_row(name, own) for name, own in groups.items() if own)]
    measure.show("where runs begin to diverge, by gn.branch", rows, markdown)
    cases = [["problem", "from", "B", "told", "interval", "kept", "not kept"]]
    for case in every:
        if case.ratio and not (case.right and case.inside):
            cases.append([
                case.problem, f"{case.start:g}", str(case.batch_size), f"{case.told:.3g}",
                f"{case.low:.3g} to {case.high:.3g}", f"{case.good:.3g}", f"{case.bad:.3g}",
            ])  # fmt: skip
    measure.show("not within 2, or not in the interval", cases, markdown)


def _row(name: str, own: Sequence[Held]) -> list[str]:
    ratios = sorted(case.ratio for case in own if case.ratio)
    span = f"{ratios[0]:.2g} to {ratios[-1]:.2g}" if ratios else "–"
    return [
        name, str(len(own)), str(sum(bool(case.good and case.bad) for case in own)),
        str(sum(case.right for case in own)), str(sum(case.inside for case in own)), span,
    ]  # fmt: skip
