"""What the file of a monitor says about the critical batch size, held to training.

python -m benchmarks.advice.watched            # three seeds of every problem, three minutes
python -m benchmarks.advice.watched --unseen   # of those that had no part in its choices
python -m benchmarks.advice truth unseen_softmax ... --seeds 1        # what training says of these

The reference run of every problem is trained by a plain loop with a `gn.NoiseMonitor` in it, and
`gn.pool` reads the lines to a point of the run. The truth is that of `compare`.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

import gradnoise as gn
from benchmarks import measure
from gradnoise.history.run_file import Run

from .compare import LEADS, case, runs, truths_ahead, truths_to_here
from .predictors import MEAN_OF, POINTS, Mean
from .problems import UNSEEN, Problem
from .store import Store
from .train import batches, fresh, judged

MEASURED = (200, 100, 40)  # steps of a run that are measured
PARTS = {"gru": 4}  # micro-batches of a step: hooks do not see inside of a GRU
COLUMNS = ("answered", "within 2", "within 5", "typical factor", "in the interval", "high/low")


def watched(problem: Problem, seed: int, measured: int, path: Path) -> Run:
    """The reference run with a monitor that is left at its defaults but for `every`."""
    batch_size, rate = problem.reference
    data, state = problem.make_data(), fresh(problem, rate, seed)
    every = max(1, problem.budget // batch_size // measured)
    monitor = gn.NoiseMonitor(
        state.model, state.optimizer, every=every, sink=path, loss_fn=problem.loss_fn, data=data
    )
    parts = PARTS.get(problem.name, 1)
    for batch in batches(data, batch_size, seed, 0, problem.budget):
        state.optimizer.zero_grad()
        with monitor.step() as step:
            total = torch.zeros(())
            for part in zip(*(x.chunk(parts) for x in batch), strict=True):
                loss = problem.loss_fn(state.model, part).mean() / parts
                loss.backward()
                total += loss.detach()
            step.loss = total
        state.optimizer.step()
    return Run.load(path)


def until(run: Run, step: float) -> Run:
    """The lines of a run to a step."""
    held = run.column("step") <= step
    columns = {name: values[held] for name, values in run.columns.items()}
    return dataclasses.replace(
        run, columns=columns, sources=tuple(np.array(run.sources)[held].tolist())
    )


@dataclasses.dataclass(frozen=True)
class Told:
    """What was told, and what training says."""

    problem: str
    batch_size: int  # in use
    truth: float
    critical: gn.Estimate
    simple: float
    profiles: float  # of gn.pool from profiles at the same points

    def off(self, value: float) -> float:
        return abs(math.log2(value / self.truth)) if value > 0 else math.inf


def unseen() -> Iterator[tuple[Problem, dict[str, Any], Store]]:
    """Problems that had no part in the choices, with the losses along their reference runs."""
    for problem in UNSEEN:
        batch_size, rate = problem.reference
        data, state = problem.make_data(), fresh(problem, rate, 0)
        total, points = problem.budget // batch_size, []
        marks = [round(total ** (k / POINTS) * 8 ** (1 - k / POINTS)) for k in range(1, POINTS + 1)]
        mean = Mean(state.model)
        for step, batch in enumerate(batches(data, batch_size, 0, 0, problem.budget), start=1):
            state.optimizer.zero_grad()
            problem.loss_fn(state.model, batch).mean().backward()
            state.optimizer.step()
            near = next(mark for mark in marks if mark >= step)
            if step > near - MEAN_OF:
                mean.add(state.model)
            if step == near:
                loss = judged(problem, mean.model, data)
                points.append({"step": step, "mean": {"all_loss": loss}})
                mean = Mean(state.model)
        yield (
            problem,
            {"lr": rate, "seed": 0, "batch_size": batch_size, "points": points},
            Store(problem),
        )


def told(measured: int, seed: int, folder: Path, problems: list[Any]) -> Iterator[tuple[str, Told]]:
    """ "to here" or "ahead", and what the file says there."""
    for problem, found, store in problems:
        if found["lr"] != problem.reference[1] or found["seed"]:
            continue
        path = folder / f"{problem.name}_{seed}_{measured}.jsonl"
        run = watched(problem, seed, measured, path)
        here = [
            ("to here", end, truth, None) for end, truth in truths_to_here(problem, found, store)
        ]
        rest = [("ahead", *own) for own in truths_ahead(problem, found, store)]
        for kind, end, truth, samples in (*here, *rest):
            seen = "samples" in found  # those of profiles
            known = case(problem, found, end, truth, samples).values[LEADS] if seen else math.nan
            pool = gn.RunPool(until(run, found["points"][end - 1]["step"]))
            try:
                ahead = None if samples is None else samples / found["batch_size"]
                critical = pool.critical_batch_size(ahead)
            except gn.NotMeasuredError:
                critical = gn.Estimate(math.nan, 0.0, math.inf, 0.95, math.nan, 0)
            simple = float(pool.simple_noise_scale)
            yield (
                kind,
                Told(problem.name, found["batch_size"], truth, critical, simple, known),
            )


def row(
    name: str, cases: list[Told], values: list[float], ends: list[tuple[float, float]] | None
) -> list[str]:
    """A value that is not told is counted as wrong, an interval without an end is left out."""
    off = np.array([case.off(value) for case, value in zip(cases, values, strict=True)])
    shares = [f"{np.mean(off <= math.log2(k)):.0%}" for k in (2, 5)]
    known = [
        (low <= case.truth <= high, high / low)
        for case, (low, high) in zip(cases, ends or [], strict=bool(ends))
        if low > 0 and math.isfinite(high)
    ]
    held = [
        f"{sum(h for h, _ in known)} of {len(known)}",
        f"{np.median([w for _, w in known]):.0f}",
    ]
    answered = f"{np.isfinite(off).sum()} of {len(off)}"
    return [name, answered, *shares, f"{2 ** np.median(off):.2g}", *(held if ends else ["", ""])]


def guessed(cases: list[Told]) -> list[float]:
    """For each case the median truth of the other problems: what needs no measurement."""
    return [float(np.median([o.truth for o in cases if o.problem != c.problem])) for c in cases]


def side(cases: list[Told]) -> list[str]:
    """How often B_crit was on the told side of B."""
    above = [own for own in cases if float(own.critical) > own.batch_size]
    below = [own for own in cases if float(own.critical) <= own.batch_size]
    right = sum(own.truth > own.batch_size for own in above)
    small = sum(own.truth <= own.batch_size for own in below)
    left = len(cases) - len(above) - len(below)
    return [f"{right} of {len(above)}", f"{small} of {len(below)}", str(left)]


def print_spread(kind: str, cases: list[Told]) -> None:
    """The share within a factor 2 of each problem."""
    names = dict.fromkeys(own.problem for own in cases)
    off = {n: [c.off(float(c.critical)) <= 1 for c in cases if c.problem == n] for n in names}
    shares = {name: float(np.mean(own)) for name, own in off.items()}
    error = np.std(list(shares.values()), ddof=1) / math.sqrt(len(shares))
    print(kind, {n: f"{share:.0%}" for n, share in shares.items()}, f"{error:.0%}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--unseen", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    problems = list(unseen() if options.unseen else runs())
    tables: dict[str, list[list[str]]] = {}
    sides = [["", "told above, trained so", "told below, trained so", "not told"]]
    for measured in MEASURED:
        found: dict[str, list[Told]] = {}
        with tempfile.TemporaryDirectory() as folder:
            for seed in range(options.seeds):
                for kind, own in told(measured, seed, Path(folder), problems):
                    found.setdefault(kind, []).append(own)
        for kind, cases in found.items():
            rows = tables.setdefault(kind, [["", *COLUMNS]])
            ends = [(own.critical.low, own.critical.high) for own in cases]
            values = [float(own.critical) for own in cases]
            sides.append([f"{kind}, {measured} measured steps", *side(cases)])
            rows.append(row(f"B_crit, {measured} measured steps", cases, values, ends))
            near = [
                (own, value) for own, value in zip(cases, values, strict=True)
                if 0.5 <= value / own.simple <= 2
            ]  # fmt: skip
            agreeing = [own for own, _ in near], [value for _, value in near]
            rows.append(row("the same, where B_simple agrees within 2", *agreeing, None))
            rows.append(row("B_simple", cases, [own.simple for own in cases], None))
            if measured == MEASURED[0]:
                if not options.unseen:
                    rows.append(row("profiles", cases, [own.profiles for own in cases], None))
                rows.append(row("median of the other problems", cases, guessed(cases), None))
                print_spread(kind, cases)
    for kind, rows in tables.items():
        measure.show(kind, rows, True)
    measure.show("on which side of the batch size in use it was", sides, True)


if __name__ == "__main__":
    main()
