"""`gn.branch`: short runs at several batch sizes from where a model and its optimizer stand."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from concurrent.futures import Executor
from numbers import Real
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import ArgumentError, check_whole, number
from ..problem.losses.loss_fn import LossFn
from ..problem.state.guard import untouched
from ..statistics.estimate import check_level
from ..training.schedule import Schedule
from .branches import Branches, in_order
from .search import Length, SizeSearch
from .trials import Trials, known_batch_size, plan_from

GROWTH = {"auto": 0.5, "linear": 1.0, "sqrt": 0.5, "none": 0.0}


def branch(
    model: nn.Module,
    loss_fn: LossFn | nn.Module,
    data: Any,
    optimizer: torch.optim.Optimizer,
    *,
    batch_sizes: Sequence[int],
    samples: int,
    batch_size: int | None = None,
    scaling: str = "auto",
    factors: Sequence[float] = (0.5, 1.0, 2.0),
    further: int = 3,
    stability: bool = False,
    seeds: int = 3,
    tolerance: float = 0.05,
    level: float = 0.95,
    max_grad_norm: float | None = None,
    schedule: str | Schedule | None = None,
    vectorise: bool | str = "auto",
    executor: Executor | None = None,
    path: str | Path | None = None,
    progress: bool = False,
) -> Branches:
    """Train copies of a model at several batch sizes for equal samples, from where it stands.

    At the smallest batch size the learning rates are `factors` times the one in use, scaled from
    B₀; at the next, rates as far apart around the middle of the two best ones before (by the two
    losses below), scaled by the ratio of the batch sizes. Where the best is the smallest or the
    largest of them, up to `further` rates beyond it are tried, a factor of 2 apart. With
    `stability` there are up to 12 more for each batch size (usually 4), until every seed has a rate
    that holds and one at most twice as large that diverges. At the smallest batch size where a rate
    held there are also runs with 1/2, 1/4 and 1/8 of the samples. All together take at most
    `len(batch_sizes)·(len(factors) + further)·seeds·samples` samples, with `stability` further + 12
    in place of further, and up to `3·seeds·samples` for the parts. Besides, a few steps find out
    whether runs can be one program, trΣ is measured on 512 samples at most, and losses at the start
    and the end of runs on 2048 at most. Model, optimizer, gradients, buffers and random states are
    left as they are; schedulers and hooks of the optimizer and backward hooks of the model take no
    part.

    Without a schedule every run has two losses: of its batches in the last quarter of the steps,
    and at the mean weights of the last half, where the noise of a large rate does not count, as
    after a decay.

    Args:
        model, loss_fn, data: as for `gn.profile`; samples of equal shapes.
        optimizer: any torch optimizer of the model, with its state. SGD, Adam and AdamW can be one
            program of all runs.
        batch_sizes: B in samples.
        samples: of each run; rounded down to whole steps at the largest batch size, and then at
            those that do not divide it.
        batch_size: B₀; by default that of a DataLoader.
        scaling: from one batch size to the next: "linear", "sqrt" ("auto": rates a factor of 2
            around it hold both linear scaling and none), or "none".
        factors: of that learning rate; at the next batch sizes around the middle of the ends.
        further: rates beyond the ends of `factors`, at most, per batch size.
        stability: whether to find where runs begin to diverge as well, for
            `Branches.stability_limit`; with `factors=[1.0]` and `further=0` few other runs.
        seeds: how many orders of the samples.
        tolerance: of `Branches.largest_batch_size`, relative to the lowest loss.
        level: of the intervals.
        max_grad_norm: longer gradients are cut to it, as `clip_grad_norm_` does.
        schedule: as for `gn.sweep`: the learning rate of every run changes so from its start to
            its end, also of those with parts of the samples. Both losses are that at the end.
        vectorise, executor, progress: as for `gn.sweep`.
        path: of a file that finished runs are written to; the same call goes on from there, also
            with other `batch_sizes` and `factors`.

    Returns:
        Branches.

    Raises:
        ArgumentError: an argument out of range; an optimizer of another model, without a positive
            learning rate, or that needs a closure.
        ModelError: the model cannot be copied.
        SweepFileError: `path` is of other runs, or damaged.

    Source: Merrill et al. 2025 (arXiv:2505.23971) for branches at several batch sizes.

    Example:
        >>> from gradnoise.toy import NoisyQuadratic
        >>> toy = NoisyQuadratic(torch.diag(torch.tensor([4.0, 1.0])), torch.ones(2))
        >>> model, data = toy.model(), toy.sample(256, seed=0)
        >>> sgd = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> found = branch(
        ...     model, toy.loss_fn, data, sgd, batch_size=4, batch_sizes=[4, 16], samples=256
        ... )
        >>> sorted(found.largest_stable())
        [4, 16]
    """
    base = known_batch_size(data, batch_size)
    sizes, chosen = _whole_numbers(batch_sizes), _positive_numbers(factors)
    check_whole("samples", samples, 1)
    check_whole("seeds", seeds, 1)
    check_whole("further", further, 0)
    samples, seeds = int(samples), int(seeds)  # whole numbers of NumPy too
    if samples < sizes[-1]:
        raise ArgumentError(
            f"`samples` must be enough for a step at every batch size, at least {sizes[-1]}; got "
            f"{samples}"
        )
    if scaling not in GROWTH:
        raise ArgumentError(f"`scaling` must be one of {', '.join(GROWTH)}; got {scaling!r}")
    if not 0 < number("tolerance", tolerance) < math.inf:
        raise ArgumentError(f"`tolerance` must be positive; got {tolerance!r}")
    check_level(level)
    with untouched(model, data):
        plan = plan_from(
            model, loss_fn, data, optimizer, samples=seeds * samples, max_grad_norm=max_grad_norm,
            schedule=schedule,
        )  # fmt: skip
        if sizes[-1] > plan.count:
            raise ArgumentError(
                f"`batch_sizes` holds {sizes[-1]}, and there are {plan.count} samples"
            )
        trials = Trials(
            plan,
            {
                "batch_size": base, "samples": samples, "seeds": seeds, "tolerance": tolerance,
                "level": level,
            },
            path=path, vectorise=vectorise, executor=executor, progress=progress,
        )  # fmt: skip
        growth = GROWTH[scaling]
        first = trials.start.lr * (sizes[0] / base) ** growth
        lrs = [first * factor for factor in chosen]
        length = Length(samples, tuple(range(seeds)))
        middle = math.sqrt(chosen[0] * chosen[-1])
        around = [factor / middle for factor in chosen]
        length = length.whole(sizes[-1])
        searched = SizeSearch(trials, sizes[0], lrs, around, growth, length, further, stability)
        for size in sizes:
            searched.add(size)
        searched.take_parts()
        return Branches(
            in_order(searched.records), trials.settings, *trials.how, in_order(searched.parts),
            trials.start.lr, base, *trials.noise, tolerance, level,
        )  # fmt: skip


def _whole_numbers(batch_sizes: Iterable[int]) -> list[int]:
    """The batch sizes, ascending."""
    sizes = list(batch_sizes) if isinstance(batch_sizes, Iterable) else [batch_sizes]
    if not sizes:
        raise ArgumentError("`batch_sizes` must hold at least one batch size")
    for size in sizes:
        check_whole("batch_sizes", size, 1)
    return sorted({int(size) for size in sizes})


def _positive_numbers(factors: Iterable[float]) -> list[float]:
    """The factors, ascending."""
    found = list(factors) if isinstance(factors, Iterable) else [factors]
    if not found or not all(isinstance(f, Real) and 0 < f < math.inf for f in found):
        raise ArgumentError(f"`factors` must be positive numbers; got {found}")
    return sorted({float(factor) for factor in found})
