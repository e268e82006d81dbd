"""What a profile will cost, before it runs, and how many samples a budget is enough for."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from numbers import Real
from typing import Any

import torch
from torch import nn

from ..errors import ArgumentError
from ..estimators.curvature.few_samples import FEW, LEAST, PART
from ..estimators.curvature.few_samples import STEPS as STEPS_OF_FEW
from ..estimators.noise.block_probes import BLOCKS, ROUNDS, SAME
from ..estimators.noise.drawn_probes import DRAWN, FIRST
from ..estimators.noise.noise_scale import ACCURACY, STEPS, check_accuracy, few_suffice
from ..estimators.noise.noise_scale import PROBES as MOST_PROBES
from ..estimators.noise.sign_probes import SAMPLING_PROBES
from ..linalg.operator import MEMORY_BUDGET
from ..measurement.opened import Opened
from ..problem.losses.loss_fn import LossFn
from ..problem.options import Options
from ..problem.problem import Problem
from ..problem.samples import MICRO_BATCH
from ..problem.work import Work
from .cost import Cost

# as they mostly are: products for λ, of all samples; where halves are measured as well; values of
# tr(HΣ) of few samples at ACCURACY; random directions of all samples; directions that are known
PRODUCTS, WITH_HALVES, VALUES, PROBES, KNOWN = 5, 8, 30, 12, 9
OF_VECTORS = 20  # sums of vectors in a backward pass, and in what is made of its result
VECTORS = 40  # of the length P that are held besides the graphs: bases, products, sums
LEAST_SAMPLES = 32  # of a budget
FINER = 2**0.25  # from one number of samples to the next that is tried


def expected_work(count: int, *, whole: bool, divisible: bool, accuracy: float = ACCURACY) -> Work:
    """Of a profile of so many samples.

    Args:
        count: n.
        whole: whether they are the population.
        divisible: whether samples can be taken apart.
        accuracy: half the interval of B_noise that is enough.
    """
    work = Work()
    many = divisible and count >= LEAST and few_suffice(count, accuracy)
    finer = (ACCURACY / max(accuracy, 1e-9)) ** 2
    _add(work, count, forward=1.2, gradients=1.1)  # moments
    _add(work, count, forward=KNOWN + 1, gradients=1)
    if not many:
        probes = min(MOST_PROBES, max(SAMPLING_PROBES, PROBES * finer))
        _add(work, count, forward=4, gradients=4, products=STEPS + 2 + 14)
        _add(work, count, forward=probes, gradients=probes, products=probes)
        if not whole:
            _add(work, count, forward=8, gradients=16, products=45)
        return work
    _add(work, FEW, forward=1, gradients=1, products=STEPS_OF_FEW)
    _add(work, PART, forward=2, gradients=2, products=7)  # curvature in two more directions
    _add(work, count, forward=1, gradients=1, products=PRODUCTS if whole else WITH_HALVES)
    if whole:
        _add(work, count, forward=1, gradients=1, products=2)  # curvature of single samples
        _add(
            work,
            DRAWN,
            forward=2,
            gradients=2,
            products=1,
            times=min(count, max(FIRST, VALUES * finer)),
        )
    else:
        _add(work, PART, forward=4, gradients=4, products=7)  # what the error of v does to it
        _add(work, count, forward=1, gradients=2)  # intervals of moments
        size = count // BLOCKS
        _add(work, size, forward=2, gradients=4, products=1 + ROUNDS + 1 / SAME, times=BLOCKS)
    return work


def _add(
    work: Work,
    count: int,
    *,
    forward: float,
    gradients: float,
    products: float = 0.0,
    times: float = 1.0,
) -> None:
    work.forward += round(count * forward * times)
    work.gradients += round(count * gradients * times)
    work.products += round(count * products * times)
    work.calls += round((gradients + products) * times * -(-count // MICRO_BATCH))


def within_budget(opened: Opened, budget: float | None, accuracy: float) -> Opened:
    """As many of the samples as a budget is enough for.

    Args:
        opened: all samples.
        budget: plain passes over all of them; None for no limit.
        accuracy: half the interval of B_noise that is enough.

    Raises:
        ArgumentError: it is not enough for a profile, or no positive number.
    """
    if budget is None:
        return opened
    if isinstance(budget, bool) or not isinstance(budget, Real) or not 0 < budget < math.inf:
        raise ArgumentError(
            f"`budget` must be a number of plain passes over the samples, like 25; got {budget!r}"
        )
    samples, divisible = opened.problem.samples, opened.problem.is_divisible
    count, least = samples.count, math.inf
    fewest = LEAST if divisible and count >= LEAST else min(LEAST_SAMPLES, count)
    while count >= fewest:
        whole = count == samples.count and samples.sampling_factor == 0
        work = expected_work(count, whole=whole, divisible=divisible, accuracy=accuracy)
        least = min(least, work.passes(samples.count))
        if least <= budget:
            return opened.of_some(count)
        count = max(fewest, int(count / FINER)) if count > fewest else 0
    units = f"{samples.count} {'groups of samples' if opened.unit.is_group else 'samples'}"
    raise ArgumentError(
        f"`budget` = {budget:g} plain passes over {units} is not enough: a profile takes about "
        f"{math.ceil(least)} at least, or `max_samples` takes fewer samples from the start"
    )


def budget_note(opened: Opened, within: Opened) -> str:
    """That a budget left samples out."""
    measured, given = within.problem.samples.count, opened.problem.samples.count
    if measured == given:
        return ""
    return f"`budget` is enough for {measured} of {given} samples; the others were not measured"


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
    memory_budget: int = MEMORY_BUDGET,
) -> Cost:
    """What `gn.profile` will cost with these options, before it runs.

    It takes the checks of a profile, and three plain passes over one micro-batch. `passes` is right
    within a factor of two: how many products λ takes is not known before. `seconds` is too small
    for models whose pass takes milliseconds.

    Args:
        model, loss_fn, data, optimizer, metric, max_samples, population, accuracy, budget, seed,
            micro_batch, unit, group_size, memory_budget: as for `gn.profile`.

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
    passes = work.passes(max(problem.samples.counts))
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
