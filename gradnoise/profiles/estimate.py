"""What a profile will cost, before it runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from ..estimators.noise.noise_scale import ACCURACY, check_accuracy
from ..linalg.operator import MEMORY_BUDGET
from ..measurement.opened import Opened
from ..problem.losses.loss_fn import LossFn
from ..problem.options import Options
from ..problem.problem import Problem
from ..problem.samples import MICRO_BATCH
from ..problem.work import Work
from .budget import within_budget
from .cost import Cost
from .expected import expected_work

OF_VECTORS = 20  # sums of vectors in a backward pass, and in what is made of its result
VECTORS = 40  # of the length P that are held besides the graphs: bases, products, sums


def estimate_cost(
    model: nn.Module,
    loss_fn: LossFn | nn.Module,
    data: Any,
    *,
    optimizer: torch.optim.Optimizer | None = None,
    metric: str = "auto",
    max_samples: int | None = 4096,
    population: str | int = "dataset",
    accuracy: float = ACCURACY,
    budget: float | None = None,
    seed: int = 0,
    micro_batch: int = MICRO_BATCH,
    unit: str = "auto",
    group_size: int | None = None,
    process_group: Any = None,
    memory_budget: int = MEMORY_BUDGET,
) -> Cost:
    """What `gn.profile` will cost with these options, before it runs.

    It takes the checks of a profile, and three plain passes over one micro-batch. `passes` is right
    within a factor of two: how many products λ takes is not known before. `seconds` is too small
    for models whose pass takes milliseconds.

    Args:
        model, loss_fn, data, optimizer, metric, max_samples, population, accuracy, budget, seed,
            micro_batch, unit, group_size, process_group, memory_budget: as for `gn.profile`.

    Returns:
        Cost; `peak_bytes` is that of graphs and vectors that a profile holds.

    Raises:
        GradNoiseError: as for `gn.profile`.

    Example:
        >>> from gradnoise.toy import NoisyQuadratic
        >>> toy = NoisyQuadratic(torch.diag(torch.tensor([4.0, 1.0])), torch.ones(2))
        >>> cost = estimate_cost(toy.model(), toy.loss_fn, toy.sample(1024, seed=0))
        >>> 20 < cost.passes < 40
        True
    """
    check_accuracy(accuracy)
    options = Options(
        optimizer=optimizer, metric=metric, population=population, max_samples=max_samples,
        seed=seed, micro_batch=micro_batch, unit=unit, group_size=group_size,
        process_group=process_group,
    )  # fmt: skip
    opened = Opened.open(model, loss_fn, data, options)
    opened = within_budget(opened, budget, accuracy)
    problem = opened.problem
    samples, divisible = problem.samples, problem.is_divisible
    count, whole = samples.count, samples.sampling_factor == 0
    work = expected_work(count, whole=whole, divisible=divisible, accuracy=accuracy)
    with problem.guard():
        hessian = opened.hessian(memory_budget=memory_budget)
        graphs = min(hessian.graph_bytes, memory_budget)
        seconds = _seconds(problem, work)
    finer = expected_work(count, whole=whole, divisible=divisible, accuracy=accuracy / 2)
    passes = work.passes(count)
    vectors = VECTORS * problem.objective.size * torch.empty(0, dtype=hessian.dtype).element_size()
    return Cost(
        samples=count,
        passes=passes,
        seconds=seconds,
        peak_bytes=int(graphs) + vectors,
        products=work.products / count,
        half_width=finer.passes(count) if whole else 4 * passes,
    )


def _seconds(problem: Problem, work: Work) -> float:
    """Of so much work, from a pass over a micro-batch and sums of vectors."""
    batch, objective = problem.largest_batch(), problem.objective
    one = torch.zeros(objective.size, device=objective.device)
    of_pass = _fastest(objective.device, lambda: objective.gradient(batch))
    of_vector = _fastest(objective.device, lambda: one.add_(one))
    passes = work.passes(problem.samples.largest_count)
    return passes * of_pass + work.calls * OF_VECTORS * of_vector


def _fastest(device: torch.device, run: Callable[[], object]) -> float:
    """Seconds of the fastest of three."""
    taken = []
    for _ in range(3):
        start = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        taken.append(time.perf_counter() - start)
    return min(taken)
