"""`gn.branch` for the largest stable rate, at points that are measured as well."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from torch import nn

import gradnoise as gn

from .data import Data, clusters, digits, friedman, separable, table
from .models import mlp
from .problems import (
    MOMENTUM,
    PROBLEMS,
    Problem,
    adam,
    adamw,
    classification,
    momentum,
    regression,
    sgd,
)
from .train import State, batches, fresh

SHARE = 0.3  # of the reference run
STEPS = 1600  # second moments with β₂ = 0.999 have settled
ADAPTIVE = (
    PROBLEMS["autoencoder"],
    Problem("digits_adam", partial(mlp, 64, 64, 10), classification, digits,
            adam, 8 * 8192, (32, 1e-3)),
    Problem("wrong_labels_adamw", partial(mlp, 32, 64, 8), classification, partial(clusters, 0.1),
            adamw, 8 * 8192, (32, 3e-3)),
    Problem("noisy_regression_adam", partial(mlp, 10, 64, 1, activation=nn.Tanh), regression,
            friedman, adam, 8 * 8192, (32, 3e-3)),
)  # fmt: skip
BLIND = (  # with SGD, not looked at when the range of the report was chosen
    *MOMENTUM,
    Problem("wrong_digits_mlp", partial(mlp, 64, 64, 10), classification, partial(digits, 0.2),
            sgd, 8 * 8192, (32, 0.1)),
    Problem("separable_momentum", partial(mlp, 30, 32, 2), classification, separable,
            momentum, 8 * 8192, (32, 0.02)),
    Problem("regression_momentum", partial(mlp, 10, 64, 1), regression, friedman,
            momentum, 8 * 8192, (32, 0.005)),
    Problem("linear_table", partial(mlp, 34, 7), classification, partial(table, 0.05),
            sgd, 8 * 8192, (32, 0.1)),
)  # fmt: skip
SIZES, FACTORS, SAMPLES, SEEDS = (16, 64, 256, 1024), tuple(2**k for k in range(8)), 16384, 2
Measure = Callable[[Problem, State, Data, int], dict[str, Any]]


def points() -> Iterator[tuple[Problem, State, Data]]:
    """Problem, state and data."""
    for problem in (*BLIND, *ADAPTIVE):
        data, (size, lr) = problem.make_data(), problem.reference
        state = fresh(problem, lr, 0)
        steps = STEPS if problem in ADAPTIVE else round(SHARE * problem.budget / size)
        for batch in batches(data, size, 0, 0, steps * size):
            state.optimizer.zero_grad()
            problem.loss_fn(state.model, batch).mean().backward()
            state.optimizer.step()
        yield problem, state, data


def branched(measure: Measure) -> list[dict[str, Any]]:
    """The largest stable rates of branches, beside what one measurement says."""
    found = []
    for problem, state, data in points():
        runs = gn.branch(
            state.model, problem.loss_fn, data, state.optimizer, batch_sizes=SIZES,
            samples=SAMPLES, batch_size=problem.reference[0], scaling="none", factors=FACTORS,
            further=0, seeds=SEEDS,
        )  # fmt: skip
        stable = {str(size): rate for size, rate in runs.largest_stable().items()}
        found.append({"problem": problem.name, "stable": stable, "samples": runs.samples,
                      **measure(problem, state, data, 1024)})  # fmt: skip
        print(problem.name, stable, flush=True)
    return found
