"""The pass over the samples: summaries of per-sample gradients become moments."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from .directional import sign_sums, weighted_sum
from .estimate import check_level
from .losses import LossFn
from .moments import GradientMoments
from .pergrad import Engine, Wanted, choose
from .probes import random_signs
from .problem import Problem
from .running import Running
from .samples import MICRO_BATCH
from .trees import Batch, TensorDict, compute_dtype, widen

SUM_ROUNDING = 8  # of sums of float32, in units of its resolution
TRACE_ERROR = 1e-3  # relative error of a trace beyond which gradients are centred before squaring
SQUARE_PROBES = 8  # sign vectors whose products give tr(Σ²)
GRAM_BLOCK = 2**20  # coordinates that are widened at once


def stream(
    problem: Problem,
    engine: Engine,
    *,
    level: float = 0.95,
    variance: bool = False,
    tick: Any = None,
) -> GradientMoments:
    """One pass over the samples; memory for one micro-batch and a few copies of the gradient."""
    check_level(level)
    wanted = Wanted(variance=variance)
    running = Running()
    moments = _pass(problem, engine, running, engine.summaries, level, wanted, tick)
    rounding = SUM_ROUNDING * min(moments.resolution, torch.finfo(torch.float32).eps)
    if rounding * running.cancellation <= TRACE_ERROR:
        return moments
    return _pass(problem, engine, Running(), engine.centred_summaries, level, wanted, tick)


def _pass(
    problem: Problem,
    engine: Engine,
    running: Running,
    summaries: Any,
    level: float,
    wanted: Wanted,
    tick: Any,
) -> GradientMoments:
    with problem.guard():
        for batch in problem.batches():
            for summary in summaries(batch, wanted):
                running.add(summary)
                if tick is not None:
                    tick(len(summary.losses))
    parameters = problem.objective.parameters.values()
    return running.moments(
        population=problem.samples.population,
        resolution=max(engine.eps, *(torch.finfo(p.dtype).eps for p in parameters)),
        level=level,
    )


def with_intervals(problem: Problem, engine: Engine, moments: GradientMoments) -> GradientMoments:
    """The moments with what their intervals need; nothing when the population was measured."""
    if moments.sampling_factor == 0:
        return moments
    signs = random_signs(SQUARE_PROBES, moments.count, seed=0)
    grams = _grams(problem, sign_sums(problem, signs))
    pairs = torch.stack(list(grams.values())).sum(0).diagonal(1).square()  # E (uᵀv)² = tr(Σ²)
    along = slopes_by_parameter(problem, engine, moments.mean)
    blocks = moments.blocks
    moments = replace(
        moments,
        slopes=torch.stack(list(along.values())).sum(0),
        trace_cov_sq=float(pairs.mean()),
        blocks=blocks and replace(blocks, slopes=along, signs=signs, grams=grams),
    )
    influences = moments.deviations()[1:].to(problem.objective.device)
    pulled = torch.stack([widen(weighted_sum(problem, row)) for row in influences])
    pulled /= moments.count - 1
    return replace(moments, pulls=pulled @ pulled.T)


def _grams(problem: Problem, noises: Iterable[Tensor]) -> TensorDict:
    """Inner products of the noises, parameter by parameter, each (K, K)."""
    parameters = problem.objective.parameters
    dtype = compute_dtype(parameters.values())
    rows = torch.stack([noise.to(dtype) for noise in noises])
    parts = torch.split(rows, [p.numel() for p in parameters.values()], dim=1)
    return {name: _gram(part) for name, part in zip(parameters, parts, strict=True)}


def _gram(rows: Tensor) -> Tensor:
    """Inner products of rows, wide, in blocks."""
    blocks = map(widen, torch.split(rows, GRAM_BLOCK, dim=1))
    return sum((b @ b.T for b in blocks), widen(rows.new_zeros(len(rows), len(rows))))


def slopes(problem: Problem, engine: Engine, direction: TensorDict) -> Tensor:
    """g_iᵀu of every sample, shape (n,), by first derivatives alone."""
    along = slopes_by_parameter(problem, engine, direction)
    return torch.stack(list(along.values())).sum(0)


def slopes_by_parameter(problem: Problem, engine: Engine, direction: TensorDict) -> TensorDict:
    """The parts of g_iᵀu that lie in each parameter, each of shape (n,)."""
    with problem.guard():
        found = [dots_of(engine, batch, direction) for batch in problem.batches()]
    return {name: torch.cat([dots[name] for dots in found]) for name in direction}


def dots_of(engine: Engine, batch: Batch, direction: TensorDict) -> TensorDict:
    """The same for one batch."""
    summaries = engine.summaries(batch, Wanted(direction=direction))
    found = [summary.dots for summary in summaries if summary.dots is not None]
    return {name: torch.cat([dots[name] for dots in found]) for name in direction}


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
        engine: "auto", or by name: "hooks", "functional", "backpack" or "loop".
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
        chosen = choose(problem.objective, problem.largest_batch(), engine)
        moments = stream(problem, chosen, level=level, variance=variance)
        return with_intervals(problem, chosen, moments) if intervals else moments
