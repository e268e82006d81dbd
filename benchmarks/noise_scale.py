"""What tr(HΣ), and with it B_noise, costs on a digits network, and how far off it is.

    python benchmarks/noise_scale.py --seeds 20 --markdown

Products with the Hessian beyond those of λ (to a relative residual of 1e-3), slopes of every sample
(an engine's pass each), the stated relative standard error and the error against the exact value,
which takes one product per parameter; with plain probes until as sure, and with the Krylov space of
λ taken out of them.
"""

from __future__ import annotations

import argparse
import statistics
from dataclasses import dataclass
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

import gradnoise as gn
from gradnoise.estimators.noise.noise_scale import (
    ACCURACY,
    PER_ERROR,
    STEPS,
    measure_noise_scale,
    sign_probes,
)
from gradnoise.linalg.deflation import explore
from gradnoise.moments.measure import stream
from gradnoise.operators.hessian import Hessian
from gradnoise.per_sample.choice import choose
from gradnoise.problem.options import Options
from gradnoise.problem.problem import Problem
from gradnoise.toy.digits import digits

MOST = 2000  # probes


@dataclass(frozen=True)
class Run:
    """One measurement.

    Args:
        products: with the Hessian beyond those of λ.
        slopes: passes for the slopes of all samples.
        stated, error: relative to the exact value.
    """

    products: int
    slopes: int
    stated: float
    error: float


def exact(problem: Problem, hessian: Hessian) -> float:
    """tr(HΣ) = Σ_j e_jᵀHΣe_j from dense H and the per-sample gradients."""
    objective = problem.objective
    found = gn.per_sample_gradients(
        objective.model, objective.loss_fn, problem.samples.batches[0], engine="functional"
    )
    rows = torch.cat([g.reshape(len(g), -1) for g in found.values()], dim=1)
    rows = rows - rows.mean(0)
    size, total = hessian.shape[0], 0.0
    for start in range(0, size, 64):
        block = torch.zeros(size, min(64, size - start), dtype=hessian.dtype)
        block[start : start + block.shape[1]].fill_diagonal_(1)
        images = hessian @ block
        total += float(((rows @ images) * rows[:, start : start + block.shape[1]]).sum())
    return total / (len(rows) - 1)


def measured(problem: Problem, seed: int, truth: float, deflated: bool) -> Run:
    """tr(HΣ) to the default accuracy."""
    hessian, ticks = Hessian.of(problem, hvp="kept"), []
    with problem.guard():
        engine = choose(problem.objective, problem.largest_batch())
        moments = stream(problem, engine)
        signs = sign_probes(moments, MOST, seed)
        taken: list[int] = []
        pairs, space = explore(hessian, tol=1e-3, steps=STEPS, seed=seed, tick=taken.append)
        found: Any = measure_noise_scale(
            hessian,
            engine,
            moments,
            signs,
            deflation=space if deflated else None,
            accuracy=ACCURACY / PER_ERROR,
            tick=ticks.append,
        ).trace_hessian_cov
    beyond = len(taken) - pairs.matvecs if deflated else 0
    slopes = len(space.directions) if deflated else 0
    error = abs(float(found) - truth) / abs(truth)
    return Run(len(ticks) + beyond, slopes, found.stderr / abs(truth), error)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--epochs", type=int, nargs="+", default=[1, 5, 40])
    options = parser.parse_args()
    table = Table(title=f"tr(HΣ) on digits to {ACCURACY:.0%}: medians of {options.seeds} seeds")
    for heading in ("epochs", "probes", "products", "most", "slopes", "stated", "error", "largest"):
        table.add_column(heading, justify="right")
    for epochs in options.epochs:
        model, criterion, data, _ = digits(epochs=epochs)
        images, labels = data.tensors
        batch = images.double(), labels
        problem = Problem.open(model.double(), criterion, batch, Options(micro_batch=4096))
        truth = exact(problem, Hessian.of(problem))
        for deflated in (False, True):
            runs = [measured(problem, seed, truth, deflated) for seed in range(options.seeds)]
            table.add_row(
                str(epochs),
                "deflated" if deflated else "plain",
                f"{statistics.median(run.products for run in runs):g}",
                str(max(run.products for run in runs)),
                f"{statistics.median(run.slopes for run in runs):g}",
                f"{statistics.median(run.stated for run in runs):.3f}",
                f"{statistics.median(run.error for run in runs):.3f}",
                f"{max(run.error for run in runs):.3f}",
            )
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
