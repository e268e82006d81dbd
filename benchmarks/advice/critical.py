"""The critical batch size of `gn.branch` from checkpoints, held to that of plain training."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradnoise as gn
from benchmarks import measure

from .decaying import Decaying
from .problems import ALL, PROBLEMS, Problem
from .search import CHECKPOINTS, SHARES, Search, budget_of
from .store import Store
from .train import restored
from .truth import short, summary

RESULTS = {  # by whether the rate falls to zero
    False: Path("benchmarks/results/advice/critical"),
    True: Path("benchmarks/results/advice/critical_decaying"),
}
RUNS = CHECKPOINTS / "branches"  # kept, so that they can be read in another way
SIZES, FURTHER = (8, 32, 128, 512), 4
LARGEST = 8192.0  # the end of the grid of `fit`: training tells no larger one
KNOWN = 8.0  # between the ends of what training tells, where it tells it


def hold(problem: Problem, seed: int, part: int, again: bool, decays: bool) -> None:
    """Branches at every checkpoint of the reference run of a seed, not where they are known.

    Args:
        problem: what is trained.
        seed: of the reference run.
        part: the samples of a trained run over those of a branch.
        again: also where they are known, from the runs that were kept.
        decays: whether the rate falls to zero, here and in training.
    """
    path = RESULTS[decays] / f"{problem.name}.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    search = Search(problem, Store(problem), [seed])
    for share in SHARES:
        key = f"{share:g} {seed} {part}"
        if key in found and not again:
            continue
        size, lr = problem.reference
        state = restored(problem, search.checkpoint(share, seed), lr)
        RUNS.mkdir(parents=True, exist_ok=True)
        branches = gn.branch(
            state.model, problem.loss_fn, search.data, state.optimizer, batch_size=size,
            batch_sizes=SIZES, samples=budget_of(problem, share) // part, further=FURTHER,
            path=RUNS / f"{problem.name}_{share:g}_{seed}_{part}{'_decaying' * decays}.jsonl",
            schedule="linear" if decays else None,
        )  # fmt: skip
        told = branches.critical_batch_size
        ends = float(told), told.low, told.high
        found[key] = {
            "critical": [x if math.isfinite(x) else None for x in ends],
            "agrees": branches.agrees,
            "samples": branches.samples,
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(found, indent=1) + "\n")


@dataclass(frozen=True)
class Told:
    """What branches told, beside what training says.

    Args:
        problem, share: and from which checkpoint.
        value, low, high: told.
        agrees: whether both ways agree.
        samples: what the branches cost.
        true, least, most: trained.
    """

    problem: str
    share: str
    value: float
    low: float
    high: float
    agrees: bool
    samples: int
    true: float
    least: float
    most: float

    @property
    def is_near(self) -> bool:
        return 0.5 <= self.value / self.true <= 2

    @property
    def is_known(self) -> bool:
        """Whether training tells it."""
        return self.most <= KNOWN * self.least

    @property
    def is_inside(self) -> bool:
        """Whether the interval holds what was trained, or its least where that has no end."""
        if self.true < LARGEST:
            return self.low <= self.true <= self.high
        return self.high >= self.least

    def row(self) -> list[str]:
        true = short(self.true)
        return [
            self.problem, self.share, short(self.value),
            f"{short(self.low)} to {short(self.high)}", "yes" if self.agrees else "no",
            true if self.true < LARGEST else f"> {short(self.least)}",
            f"{short(self.least)} to {short(self.most)}", short(self.value / self.true),
        ]  # fmt: skip


def told(part: int, decays: bool) -> Iterator[Told]:
    """All that is known."""
    for problem in ALL.values():
        path = RESULTS[decays] / f"{problem.name}.json"
        for key, own in (json.loads(path.read_text()) if path.exists() else {}).items():
            share, _, of = key.split()
            if int(of) != part:
                continue
            trained = trained_at(problem, float(share), decays)
            value, low, high = own["critical"]
            yield Told(
                problem.name, share, math.nan if value is None else value, low or 0.0,
                math.inf if high is None else high, own["agrees"], own["samples"], *trained,
            )  # fmt: skip


def trained_at(problem: Problem, share: float, decays: bool) -> tuple[float, float, float]:
    """The trained critical batch size, and its 95 % interval; of a decay those of its targets."""
    if decays:
        value, targets = Decaying(problem).critical(share)
        return value, min(targets), max(targets)
    found = summary(problem, Store(problem), share)["critical"]
    return found["value"], found["low"], found["high"]


def show(part: int, markdown: bool, decays: bool) -> None:
    """Told beside trained, and how often they are near."""
    every = list(told(part, decays))
    ends = "of its targets" if decays else "95 %"
    head = ["problem", "from", "told", "interval", "both ways agree", "trained", ends, "ratio"]
    measure.show("critical batch size of branches", [head, *(one.row() for one in every)], markdown)
    rows = [["", "checkpoints", "a number", "within 2", "in the interval", "agree", "and within 2"]]
    for name, kept in (
        ("ten problems", [one for one in every if one.problem in PROBLEMS]),
        ("six others", [one for one in every if one.problem not in PROBLEMS]),
        ("all", every),
        ("of these where training tells it", [one for one in every if one.is_known]),
    ):
        sure = [one for one in kept if one.agrees and not math.isnan(one.value)]
        counts = (
            len(kept), sum(not math.isnan(one.value) for one in kept),
            sum(one.is_near for one in kept), sum(one.is_inside for one in kept), len(sure),
            sum(one.is_near for one in sure),
        )  # fmt: skip
        rows.append([name, *map(str, counts)])
    measure.show("how often", rows, markdown)
    cost = sum(one.samples for one in every) / max(1, len(every))
    print(f"samples of all branches from a checkpoint: {cost:.3g}")
