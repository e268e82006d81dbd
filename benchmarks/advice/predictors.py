"""Which number predicts the trained critical batch size?

python -m benchmarks.advice.predictors                     # measure on all problems, 40 minutes
python -m benchmarks.advice.predictors digits_mlp --rate 4 # at four times the reference rate
python -m benchmarks.advice.compare                        # the tables, from the files of results

The reference run of every problem is trained by a plain loop, and measured at twelve points: where
the weights are, at the mean of the last 20 steps, at that of the last tenth of the run, and after
20 steps with a rate that falls to zero.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

import gradnoise as gn

from .data import Data
from .problems import ALL, Problem
from .train import State, batches, fresh

RESULTS = Path(__file__).parents[1] / "results" / "advice" / "predictors"
POINTS, MEAN_OF = 12, 20
PARTS = ("loss", "grad_sq_norm", "trace_cov", "grad_curvature", "trace_hessian_cov")
MORE = ("sharpness", "curvature_noise_scale")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    seen = [name for name in ALL if not name.startswith("unseen")]
    parser.add_argument("problems", nargs="*", default=seen)
    parser.add_argument("--samples", type=int, default=1024)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rate", type=float, default=1.0, help="factor of the reference rate")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name in arguments.problems:
        found = measured(ALL[name], arguments.samples, arguments.seed, arguments.rate)
        RESULTS.mkdir(parents=True, exist_ok=True)
        file = (
            RESULTS
            / f"{name}_seed{arguments.seed}_rate{arguments.rate:g}_n{arguments.samples}.json"
        )
        file.write_text(text({"command": " ".join(sys.argv), **found}))
        print(f"{name}: {found['seconds']:.0f} s", flush=True)


def text(found: dict[str, Any]) -> str:
    """JSON with a line for each point, numbers with five digits."""
    points = [json.dumps(rounded(point)) for point in found["points"]]
    head = json.dumps({**found, "points": []}, indent=1)
    return head.replace("[]", "[\n" + ",\n".join(points) + "\n]") + "\n"


def rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: rounded(item) for name, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value


def measured(problem: Problem, samples: int, seed: int, factor: float) -> dict[str, Any]:
    """The numbers at every point of the reference run."""
    started = time.perf_counter()
    batch_size, rate = problem.reference
    rate *= factor
    data = problem.make_data()
    state = fresh(problem, rate, seed)
    total = problem.budget // batch_size
    marks = [round(total ** (k / POINTS) * 8 ** (1 - k / POINTS)) for k in range(1, POINTS + 1)]
    means = {"mean": Mean(state.model), "tenth": Mean(state.model)}
    points = []
    for step, batch in enumerate(batches(data, batch_size, seed, 0, problem.budget), start=1):
        state.optimizer.zero_grad()
        problem.loss_fn(state.model, batch).mean().backward()
        state.optimizer.step()
        near = next(mark for mark in marks if mark >= step)
        for name, length in (("mean", MEAN_OF), ("tenth", max(MEAN_OF, near // 10))):
            if step > near - length:
                means[name].add(state.model)
        if step == near:
            models = {name: mean.model for name, mean in means.items()}
            here = point(problem, state, models, data, samples, batch_size)
            points.append({"step": step, **here})
            means = {name: Mean(state.model) for name in means}
    return {
        "problem": problem.name, "batch_size": batch_size, "lr": rate, "seed": seed,
        "samples": samples, "points": points, "seconds": time.perf_counter() - started,
    }  # fmt: skip


class Mean:
    """The mean of weights, in a copy of the model."""

    def __init__(self, model: nn.Module) -> None:
        self.model, self.count = copy.deepcopy(model), 0

    def add(self, model: nn.Module) -> None:
        self.count += 1
        with torch.no_grad():
            for own, new in zip(self.model.parameters(), model.parameters(), strict=True):
                own += (new - own) / self.count


def point(
    problem: Problem, state: State, means: dict[str, nn.Module], data: Data, samples: int, size: int
) -> dict[str, Any]:
    """All measurements at one point."""
    optimizer = state.optimizer
    cold = gn.cooled(state.model, problem.loss_fn, data, optimizer, batch_size=size, steps=MEAN_OF)
    found: dict[str, Any] = {}
    for where, model in {"iterate": state.model, **means, "cooled": cold}.items():
        moments = gn.gradient_moments(model, problem.loss_fn, data, intervals=False)
        found[where] = {f"all_{n}": float(getattr(moments, n)) for n in PARTS[:3]}
        if where != "tenth":
            found[where] |= numbers(problem, model, data, samples, None)
    if not isinstance(optimizer, torch.optim.SGD):
        found["own"] = numbers(problem, state.model, data, samples, optimizer)
    return found


def numbers(
    problem: Problem, model: nn.Module, data: Data, samples: int, optimizer: Any
) -> dict[str, Any]:
    """The profile as plain numbers."""
    metric = "euclidean" if optimizer is None else "optimizer"
    p = gn.profile(
        model, problem.loss_fn, data, max_samples=samples, optimizer=optimizer, metric=metric
    )
    kept = {name: p.estimates.get(name) for name in (*PARTS, *MORE)}
    return {name: e and [e.value, e.low, e.high, e.stderr] for name, e in kept.items()}


if __name__ == "__main__":
    main()
