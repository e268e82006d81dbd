"""Batch sharpness: the curvature of the loss of a batch along the gradient of that batch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import nn

from ...errors import ArgumentError, check_whole
from ...problem.directional import per_sample_curvatures
from ...problem.losses.loss_fn import LossFn
from ...problem.options import Options
from ...problem.problem import Problem
from ...problem.samples import MICRO_BATCH
from ...problem.sums import weighted_sum
from ...statistics.estimate import Estimate
from ...statistics.interval import skewed, skewness, symmetric
from ...statistics.transform import in_samples
from ...tensors.random import generator

BATCHES = 32


def batch_sharpness(
    model: nn.Module,
    loss_fn: LossFn | nn.Module,
    data: Any,
    *,
    batch_size: int,
    batches: int = BATCHES,
    optimizer: torch.optim.Optimizer | None = None,
    metric: str = "auto",
    max_samples: int | None = 4096,
    level: float = 0.95,
    seed: int = 0,
    micro_batch: int = MICRO_BATCH,
    unit: str = "auto",
    group_size: int | None = None,
    process_group: Any = None,
) -> Estimate:
    """E_B[g_BᵀH_Bg_B/‖g_B‖²], which stays near 2/ε in training with SGD (arXiv:2412.20553).

    Gradient g_B and Hessian H_B are those of the batch: for B = 1 the mean over single samples, for
    all samples GᵀHG/|G|². Compare it with 2/ε of the learning rate in use: far below it, that rate
    does not limit training yet. With momentum m it stays near 2(1 - m)/ε for small batches and
    near 2(1 + m)/ε for large ones (arXiv:2604.14108). A diagnostic, no proof of stability.

    Args:
        model, loss_fn, data, optimizer, metric, max_samples, micro_batch, unit, group_size,
            process_group: as for `gradient_moments`; in the metric of an optimizer decoupled weight
            decay is left out.
        batch_size: B in samples.
        batches: how many are drawn, each without replacement from all measured samples.
        level: coverage of the interval, which is about the measured samples.
        seed: of the samples and of the batches.

    Returns:
        Estimate in loss/parameter²; exact where a batch is all samples.

    Raises:
        GradNoiseError: see `gradient_moments`.
        ArgumentError: a batch larger than what is measured, fewer than 2 batches, or a batch
            with a gradient of zero.

    Source: arXiv:2412.20553; with momentum arXiv:2604.14108.

    Example:
        >>> data = (torch.ones(8, 1), torch.arange(8.0)[:, None])  # H = 2 for every sample
        >>> float(batch_sharpness(nn.Linear(1, 1, bias=False), nn.MSELoss(), data, batch_size=2))
        2.0
    """
    check_whole("batch_size", batch_size, 1)
    check_whole("batches", batches, 2)
    options = Options(
        optimizer=optimizer, metric=metric, max_samples=max_samples, level=level, seed=seed,
        micro_batch=micro_batch, unit=unit, group_size=group_size, process_group=process_group,
    )  # fmt: skip
    problem = Problem.open(model, loss_fn, data, options)
    b, count = problem.unit.size, problem.samples.count
    units = problem.unit.count_of(batch_size)
    if units > count:
        raise ArgumentError(
            f"`batch_size` = {batch_size} is more than the {count * b} samples that are measured; "
            f"give more `data` or raise `max_samples`"
        )
    with problem.guard():
        if units == count:
            whole = symmetric(_sharpness(problem), 0.0, level=level, samples=count)
            return in_samples(whole, b, keep=True)
        source = generator(seed)
        values = [_sharpness(_batch(problem, units, source)) for _ in range(batches)]
    found = torch.tensor(values, dtype=torch.float64)
    return replace(
        skewed(
            float(found.mean()),
            float(found.var()) / batches,
            skewness(values),
            level=level,
            samples=batches,
        ),
        samples=count * b,
    )


def _batch(problem: Problem, size: int, source: torch.Generator) -> Problem:
    chosen = torch.zeros(problem.samples.count, dtype=torch.bool)
    chosen[torch.randperm(len(chosen), generator=source)[:size]] = True
    return replace(problem, samples=problem.samples.subset(chosen))


def _sharpness(problem: Problem) -> float:
    """gᵀHg/‖g‖² of these samples."""
    n = problem.samples.count
    slope = weighted_sum(problem, torch.full((n,), 1 / n, device=problem.objective.device))
    length = float(slope.norm())
    if not length:
        raise ArgumentError(
            f"a batch of {n} samples has no gradient at all, so that the curvature along it is "
            f"undefined; measure a larger `batch_size`"
        )
    direction = slope / length
    return float(direction @ per_sample_curvatures(problem, direction, []).product)
