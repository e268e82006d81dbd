"""Largest rates that kept the loss in training, beside what one measurement said."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import measure

from .problems import PROBLEMS, Problem
from .search import budget_of
from .store import KEPT, Cell, Store

RESULTS = Path(__file__).parents[1] / "results" / "advice" / "stability"
SMALL = RESULTS / "small_batches"  # B = 4 from the checkpoints
RISE = math.sqrt(2)  # of the loss of a run that goes on, as in `gn.branch`
FIRST = ("digits_mlp", "wrong_labels_mlp", "table_momentum", "noisy_regression")
OTHERS = ("separable_mlp", "wrong_digits_cnn", "groupnorm_cnn")
LIMITS = ("critical", "full_batch", "mean_square", "doubling")


@dataclass(frozen=True)
class Case:
    """One batch size from one point; the loss is kept at `good` and at no rate from `bad` on."""

    problem: str
    start: float
    step: int
    batch_size: int
    good: float
    bad: float
    told: dict[str, float]

    def ratio(self, limit: str) -> float:
        return self.good / self.told[limit]

    def within(self, limit: str, factor: float = 1.0) -> bool:
        """Whether factor times the limit is within 2 of the middle between good and bad."""
        off = factor * self.told[limit] / math.sqrt(self.good * self.bad)
        return 0.5 <= off <= 2


def cases(problems: Sequence[str]) -> Iterator[Case]:
    """Of all seeds, where the search found a rate at which the loss is kept, and one beyond."""
    for name in problems:
        for path in sorted(RESULTS.glob(f"{name}_seed*.json")):
            for point in json.loads(path.read_text())["points"]:
                yield from _of(name, point)


def _of(name: str, point: dict[str, Any]) -> Iterator[Case]:
    problem, start = PROBLEMS[name], point["start"]
    for size in problem.batch_sizes:
        few = start and size == 4  # which `benchmarks.advice truth` did not train at first
        good, bad = trained(problem, start, size, Store(problem, SMALL) if few else Store(problem))
        told = {limit: point[limit] for limit in LIMITS[:2]}
        told |= {limit: point[limit][str(size)] for limit in LIMITS[2:]}
        if good and bad and not math.isnan(told["mean_square"]):
            yield Case(name, start, point["step"], size, good, bad, told)


def trained(
    problem: Problem, start: float, size: int, store: Store
) -> tuple[float | None, float | None]:
    """The largest rate that kept the loss in training, and the next one, where there are such."""
    most = KEPT * store.facts["untrained"]
    if start:
        losses = Store(problem).facts["checkpoints"][f"{start:g}"].values()
        most = min(most, RISE * math.exp(statistics.fmean(map(math.log, losses))))
    own, budget = list(store.of(start, size).values()), budget_of(problem, start)
    good = max((c.lr for c in own if _kept(c, budget, most)), default=None)
    return good, min((c.lr for c in own if good and c.lr > good), default=None)


def _kept(cell: Cell, budget: int, most: float) -> bool:
    at = cell.samples.index(budget)
    return all(len(losses) > at and losses[at] <= most for losses in cell.losses.values())


def show(markdown: bool) -> None:
    every = list(cases((*FIRST, *OTHERS)))
    later = [case for case in every if case.start]
    groups = {name: [c for c in later if c.problem == name] for name in (*FIRST, *OTHERS)}
    groups |= {f"B = {b}": [c for c in later if c.batch_size == b] for b in (4, 16, 64, 256, 1024)}
    groups |= {
        "first four": [c for c in later if c.problem in FIRST],
        "other three": [c for c in later if c.problem in OTHERS],
        "all": later,
    }
    measure.show("from checkpoints: loss kept", [HEAD, *map(_row, *_pairs(groups))], markdown)
    early = {
        f"step {step}, B = {size}": [
            c for c in every if not c.start and c.step == step and c.batch_size == size
        ]
        for step in (0, 10, 50) for size in (4, 1024)
    }  # fmt: skip
    early |= {"all": [c for c in every if not c.start]}
    measure.show("from scratch: trained", [HEAD, *map(_row, *_pairs(early))], markdown)
    measure.show("by gn.branch, over what was told", _branches(), markdown)


def _pairs(groups: dict[str, list[Case]]) -> tuple[list[str], list[list[Case]]]:
    return list(groups), list(groups.values())


HEAD = [
    "cases", "number", "kept / η_c", "kept / full batch", "kept / mean-square", "kept / doubling",
    "within 2: mean-square", "doubling", "twice doubling",
    "kept at half of: mean-square", "doubling", "0.4 to 5 times doubling",
]  # fmt: skip


def _row(name: str, own: list[Case]) -> list[str]:
    spans = []
    for limit in LIMITS:
        ratios = [ratio for case in own if not math.isnan(ratio := case.ratio(limit))]
        spans.append(f"{statistics.median(ratios):.2g} ({min(ratios):.2g} to {max(ratios):.2g})")
    return [
        name, str(len(own)), *spans,
        *(str(sum(hits)) for hits in (
            [c.within("mean_square") for c in own], [c.within("doubling") for c in own],
            [c.within("doubling", 2.0) for c in own],
            [c.ratio("mean_square") >= 0.5 for c in own],
            [c.ratio("doubling") >= 0.5 for c in own],
            [0.4 <= c.ratio("doubling") <= 5 for c in own],
        )),
    ]  # fmt: skip


def _branches() -> list[list[str]]:
    rows = [["problem", "B", "by branches", "mean-square", "doubling"]]
    path = RESULTS / "branches.json"
    for point in json.loads(path.read_text())["points"] if path.exists() else ():
        for size, rate in point["stable"].items():
            limits = (f"{rate / point[limit][size]:.2g}" for limit in LIMITS[2:])
            rows.append([point["problem"], size, f"{rate:.3g}", *limits])
    return rows
