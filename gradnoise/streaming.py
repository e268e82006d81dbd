"""The pass over the samples: chunks of per-sample gradients become moments."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from typing import Any

import torch
from torch import nn

from .directional import require_second_order, sign_sums, slopes
from .estimate import check_level
from .losses import LossFn
from .moments import GradientMoments
from .pergrad import Engine, choose
from .probes import random_signs
from .problem import Problem
from .samples import MICRO_BATCH

SQUARE_PROBES = 5  # sign vectors whose products give tr(Σ²)


def stream(
    problem: Problem,
    engine: Engine,
    *,
    level: float = 0.95,
    variance: bool = False,
    tick: Any = None,
) -> GradientMoments:
    """One pass over the samples; memory for one chunk and a few copies of the gradient."""
    check_level(level)
    total: GradientMoments | None = None
    with problem.guard():
        for batch in problem.batches():
            for chunk in engine.chunks(batch):
                part = GradientMoments.of(
                    chunk, population=problem.samples.population, level=level, variance=variance
                )
                total = part if total is None else total.merge(part)
                if tick is not None:
                    tick(len(chunk.losses))
    assert total is not None  # Samples hold at least two samples
    return total


def with_intervals(problem: Problem, moments: GradientMoments) -> GradientMoments:
    """The moments with what their intervals need; nothing when the population was measured."""
    if moments.sampling_factor == 0:
        return moments
    direction = torch.cat([mean.reshape(-1) for mean in moments.mean.values()])
    noises = sign_sums(problem, random_signs(SQUARE_PROBES, moments.count, seed=0))
    pairs = [float(u @ v) ** 2 for u, v in combinations(noises, 2)]  # E (uᵀv)² = tr(Σ²)
    return replace(moments, slopes=slopes(problem, direction), trace_cov_sq=sum(pairs) / len(pairs))


def gradient_moments(
    model: nn.Module,
    loss_fn: LossFn | nn.Module,
    data: Any,
    *,
    engine: str = "auto",
    population: str | int = "dataset",
    variance: bool = False,
    intervals: bool = True,
    max_samples: int | None = None,
    level: float = 0.95,
    seed: int = 0,
    micro_batch: int = MICRO_BATCH,
) -> GradientMoments:
    """Mean gradient, |G|², trΣ and B_simple of a model, in one streaming pass.

    Σ = Cov(g_i) per sample, estimated with 1/(n - 1); |G|² is unbiased for the population.

    Args:
        model: any `nn.Module`; it is left as found.
        loss_fn: `loss_fn(model, batch)` with one loss per sample, or a torch criterion.
        data: a DataLoader, a Dataset, a list of batches, or one batch.
        engine: "auto", "functional" or "loop".
        population: "dataset", "distribution" or a number N.
        variance: also keep the variance per coordinate.
        intervals: a second pass for the intervals; not needed when all of N is measured.
        max_samples: n at most; None measures all.
        level: coverage of the intervals.
        seed: of the choice of samples.
        micro_batch: samples evaluated at once.

    Returns:
        GradientMoments.

    Raises:
        GradNoiseError: see `Objective`, `Samples.draw` and `choose`.
        CurvatureError: intervals need second derivatives that the model does not have.

    Example:
        >>> model = nn.Linear(1, 1, bias=False)
        >>> data = (torch.ones(4, 1), torch.tensor([[0.0], [2.0], [0.0], [2.0]]))
        >>> float(gradient_moments(model, nn.MSELoss(), data).trace_cov)  # g_i = 2(w - y_i)
        5.33...
    """
    problem = Problem.open(
        model,
        loss_fn,
        data,
        max_samples=max_samples,
        population=population,
        seed=seed,
        micro_batch=micro_batch,
    )
    with problem.guard():
        choice = choose(problem.objective, problem.largest_batch(), engine)
        moments = stream(problem, choice.engine, level=level, variance=variance)
        if not intervals or moments.sampling_factor == 0:
            return moments
        require_second_order(problem)
        return with_intervals(problem, moments)
