"""Predictions of the critical batch size beside the trained one: see `predictors`."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

import gradnoise as gn
from benchmarks import measure

from .fit import fitted, table
from .predictors import RESULTS
from .problems import ALL, Problem
from .search import budget_of
from .store import Store
from .truth import starts, summary

TENTH = 0.1  # of the run, before which nothing is compared
KNOWN = 0.35  # misfit of ln E beyond which the fit of the truth is not one
LARGEST = 2048  # twice the largest batch: beyond, the runs do not determine B_crit
RECENT = 4  # points of a shorter pool
LEADS = "ε_max·trΣ/D (gn.pool)"


@dataclass(frozen=True)
class Case:
    """One point of a run.

    Args:
        truth: the trained critical batch size.
        values: the predictions of it.
        interval, agreement: of gn.pool.
    """

    truth: float
    values: dict[str, float]
    interval: tuple[float, float]
    agreement: float

    def off(self, name: str) -> float:
        """log₂ of prediction/truth; nan where the prediction is not positive."""
        return math.log2(self.values[name] / self.truth) if self.values[name] > 0 else math.nan


@dataclass(frozen=True)
class Settings:
    momentum: float


@dataclass(frozen=True)
class Point:
    """A profile that was kept as numbers."""

    loss: gn.Estimate
    grad_sq_norm: gn.Estimate
    trace_cov: gn.Estimate
    grad_curvature: gn.Estimate
    trace_hessian_cov: gn.Estimate
    sharpness: gn.Estimate
    curvature_noise_scale: gn.Estimate
    optimizer: Settings

    @classmethod
    def of(cls, numbers: dict[str, Any], samples: int, momentum: float) -> Point:
        names = [name for name in cls.__dataclass_fields__ if name != "optimizer"]
        estimates = {}
        for name in names:
            value, low, high, stderr = map(float, numbers[name] or [math.nan] * 4)
            estimates[name] = gn.Estimate(value, low, high, 0.95, stderr, samples)
        return cls(**estimates, optimizer=Settings(momentum))


def case(
    problem: Problem, found: dict[str, Any], end: int, truth: float, ahead: float | None = None
) -> Case:
    """All predictions after `end` points of a run."""
    points = found["points"][:end]
    adam = "own" in points[0]
    momentum = momentum_of(problem)
    where = "own" if adam else "iterate"
    at = {
        name: [Point.of(point[name], found["samples"], momentum) for point in points]
        for name in (where, "iterate", "mean", "cooled")
    }
    own, last = at[where], at[where][-1]
    steps = [point["step"] for point in points]
    pools = {name: gn.pool(members) for name, members in at.items()}
    recent = gn.pool(own[-RECENT:])
    rate = 1 if adam else 1 / (1 - momentum)
    pool = gn.pool(own, steps=steps)
    length = ahead and ahead / found["batch_size"]
    critical = pool.critical_batch_size(length)
    simple = [float(p.trace_cov) / float(p.grad_sq_norm) for p in own]
    values = {
        "B_simple, last point": simple[-1],
        "B_noise, last point": float(last.trace_hessian_cov) / float(last.grad_curvature),
        "B_simple, pooled": float(pools[where].simple_noise_scale),
        "B_noise, pooled": float(pools[where].noise_scale),
        "B_simple, last 4 pooled": float(recent.simple_noise_scale),
        "B_noise, last 4 pooled": float(recent.noise_scale),
        "geometric mean of both, pooled": math.sqrt(
            max(float(pools[where].simple_noise_scale) * float(pools[where].noise_scale), 0.0)
        ),
        "B_simple at averaged weights, pooled": float(pools["mean"].simple_noise_scale),
        "B_noise at averaged weights, pooled": float(pools["mean"].noise_scale),
        "B_simple at cooled weights, pooled": float(pools["cooled"].simple_noise_scale),
        "B_noise at cooled weights, pooled": float(pools["cooled"].noise_scale),
        "CABS at the rate in use": found["lr"] * rate * float(last.trace_cov) / float(last.loss),
        "CABS at the rate 2/((1 - m)λ)": 2 / (1 - momentum) / float(last.sharpness)
        * float(last.trace_cov) / float(last.loss),
        "B_curv, last point": float(last.curvature_noise_scale),
        LEADS: float(critical),
    }  # fmt: skip
    return Case(truth, values, (critical.low, critical.high), pool.agreement(length))


def momentum_of(problem: Problem) -> float:
    group = problem.make_optimizer([nn.Parameter(torch.zeros(1))], 1.0).param_groups[0]
    return float(group["betas"][0] if "betas" in group else group["momentum"])


def runs() -> Iterator[tuple[Problem, dict[str, Any], Store]]:
    for file in sorted(RESULTS.glob("*.json")):
        found = json.loads(file.read_text())
        problem = ALL[found["problem"]]
        store = Store(problem)
        if store.cells:
            yield problem, found, store


def to_here(problem: Problem, found: dict[str, Any], store: Store) -> Iterator[Case]:
    """The critical batch size of runs from scratch to the loss of each point."""
    for end, value in truths_to_here(problem, found, store):
        yield case(problem, found, end, value)


def truths_to_here(
    problem: Problem, found: dict[str, Any], store: Store
) -> Iterator[tuple[int, float]]:
    """Number of points so far, and the trained critical batch size."""
    cells = {size: list(store.of(0.0, size).values()) for size in problem.batch_sizes}
    cells = {size: own for size, own in cells.items() if len(own) > 2}
    limits = [own[0].samples[-1] for own in cells.values()]
    for end, point in enumerate(found["points"], start=1):
        if cells and point["step"] >= TENTH * found["points"][-1]["step"]:
            needed = table(cells, [point["mean"]["all_loss"]])
            value, misfit = fitted(list(cells), needed, limits)
            if misfit < KNOWN and value < LARGEST:
                yield end, value


def ahead(problem: Problem, found: dict[str, Any], store: Store) -> Iterator[Case]:
    """The critical batch size of runs that go on from checkpoints of the reference run."""
    for end, value, budget in truths_ahead(problem, found, store):
        yield case(problem, found, end, value, budget)


def truths_ahead(
    problem: Problem, found: dict[str, Any], store: Store
) -> Iterator[tuple[int, float, float]]:
    """Number of points so far, the trained critical batch size, and the samples ahead."""
    for start in starts(store)[1:] if found["lr"] == problem.reference[1] else []:
        truth = summary(problem, store, start)["critical"]
        stop = start * problem.budget / found["batch_size"]
        gaps = [abs(math.log(point["step"] / stop)) for point in found["points"]]
        if truth["misfit"] < KNOWN and truth["value"] < LARGEST:
            yield 1 + int(np.argmin(gaps)), truth["value"], budget_of(problem, start)


def show(title: str, cases: dict[str, list[Case]]) -> None:
    """How often within a factor 2 and 5, and the median factor, of each predictor and problem."""
    rows = [["predictor", "within 2", "within 5", "typical factor", *cases]]
    every = [case for own in cases.values() for case in own]
    for name in every[0].values:
        off = np.nan_to_num([abs(case.off(name)) for case in every], nan=9.0)
        rows.append([
            name, *(f"{np.mean(off <= math.log2(k)):.0%}" for k in (2, 5)),
            f"{2 ** np.median(off):.2g}",
            *(median([case.off(name) for case in own]) for own in cases.values()),
        ])  # fmt: skip
    truths = [" ".join(f"{case.truth:.0f}" for case in own) for own in cases.values()]
    measure.show(title, [*rows, ["trained", "", "", "", *truths]], True)
    agree = [case for case in every if case.agreement <= 2]
    right = sum(abs(case.off(LEADS)) <= 1 for case in agree)
    held = sum(case.interval[0] <= case.truth <= case.interval[1] for case in every)
    both = [c for c in every if abs(c.off("B_simple, pooled") - c.off("B_noise, pooled")) <= 1]
    simple = sum(abs(case.off("B_simple, pooled")) <= 1 for case in both)
    print(
        f"\n{len(every)} cases; {held} in their intervals. ε_max·trΣ/D and pooled B_simple agree "
        f"within 2 in {len(agree)} cases, the first is right in {right}; pooled B_simple and "
        f"B_noise agree in {len(both)}, the first is right in {simple}."
    )


def median(logs: list[float]) -> str:
    return f"{2 ** np.nanmedian(logs):.2g}" if np.isfinite(logs).any() else "–"


def main() -> None:
    for kind, title in ((to_here, "from scratch to here"), (ahead, "from a checkpoint on")):
        for reference in (True, False):
            cases: dict[str, list[Case]] = {}
            for problem, found, store in runs():
                if (found["lr"] == problem.reference[1]) is reference:
                    name = problem.name if reference else f"{problem.name} at {found['lr']:.2g}"
                    cases.setdefault(name, []).extend(kind(problem, found, store))
            cases = {name: own for name, own in cases.items() if own}
            if cases:
                show(title if reference else f"{title}, other rates", cases)


if __name__ == "__main__":
    main()
