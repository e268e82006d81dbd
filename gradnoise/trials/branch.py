"""`gn.branch`: short runs at several batch sizes from where a model and its optimizer stand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import ArgumentError, check_whole
from ..learning_rate.formulas import scale_lr
from ..problem.guard import untouched
from ..problem.losses import LossFn
from ..statistics.estimate import check_level
from ..training.record import Run
from .branches import WHOLE, Branches
from .trials import Trials, known_batch_size, plan_from

SHARES = {"half of the samples": 2, "a quarter of the samples": 4}  # of the smallest batch size
SCALINGS = ("auto", "linear", "sqrt", "none")


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
    seeds: int = 3,
    tolerance: float = 0.05,
    level: float = 0.95,
    max_grad_norm: float | None = None,
    vectorise: bool | str = "auto",
    executor: Executor | None = None,
    path: str | Path | None = None,
    progress: bool = False,
) -> Branches:
    """Train copies of a model at several batch sizes for equal samples, from where it stands.

    At batch size B the learning rates are `factors` times ε₀B/B₀ (linear) or ε₀√(B/B₀) (sqrt), with
    ε₀ and B₀ in use now. The runs at the smallest batch size are made with half and a quarter of
    the samples as well. All together take `len(batch_sizes)·len(factors)·seeds·samples` samples,
    and 3/4 of `len(factors)·seeds·samples` more. Model, optimizer, gradients, buffers and random
    states are left as they are; schedulers and hooks of the optimizer take no part.

    Losses are compared at the mean weights of the last half of each run, because at the last
    weights a larger learning rate has a higher loss from its noise alone.

    Args:
        model, loss_fn, data: as for `gn.profile`; samples of equal shapes.
        optimizer: any torch optimizer of the model, with its state. SGD, Adam and AdamW can be one
            program of all runs.
        batch_sizes: B in samples.
        samples: of each run, about: a run takes `samples`/B steps, rounded.
        batch_size: B₀; by default that of a DataLoader.
        scaling: "auto": linear for SGD, sqrt for other optimizers; "linear", "sqrt" or "none".
        factors: of the scaled learning rate.
        seeds: how many orders of the samples.
        tolerance: of `Branches.largest_batch_size`, relative to the lowest loss.
        level: of the intervals.
        max_grad_norm: longer gradients are cut to it, as `clip_grad_norm_` does.
        vectorise, executor, progress: as for `gn.sweep`.
        path: of a file that finished runs are written to; the same call goes on from there.

    Returns:
        Branches.

    Raises:
        ArgumentError: an argument out of range.
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
    _check(batch_sizes, samples, scaling, factors, seeds, tolerance)
    check_level(level)
    with untouched(model, data):
        plan = plan_from(
            model, loss_fn, data, optimizer, samples=seeds * samples, max_grad_norm=max_grad_norm
        )
        start = plan.start
        assert start is not None
        if max(batch_sizes) > plan.count:
            raise ArgumentError(
                f"`batch_sizes` holds {max(batch_sizes)}, and there are {plan.count} samples"
            )
        rule = scaling
        if scaling == "auto":
            rule = "linear" if isinstance(optimizer, torch.optim.SGD) else "sqrt"
        lrs = {
            size: [f * scale_lr(start.lr, base, size, rule) for f in factors]
            for size in sorted(set(batch_sizes))
        }
        runs = _runs(lrs, samples, seeds)
        own = {"lr": start.lr, "batch_size": base, "scaling": rule}
        trials = Trials(
            plan, own, path=path, vectorise=vectorise, executor=executor, progress=progress
        )
        records = trials.run(runs)
        whole, parts = (
            tuple(r for r in records if (r.run.budget == WHOLE) is wanted)
            for wanted in (True, False)
        )
        return Branches(
            whole, trials.settings, *trials.how, parts, start.lr, base, rule, tolerance, level
        )


def _runs(lrs: dict[int, list[float]], samples: int, seeds: int) -> list[Run]:
    """All samples at every batch size; at the smallest, parts of them as well."""
    shares = {WHOLE: 1, **SHARES}
    smallest = min(lrs)
    return [
        Run(size, lr, seed, budget, max(1, round(samples / share / size)))
        for budget, share in shares.items()
        for size in lrs
        if share == 1 or size == smallest
        for lr in lrs[size]
        for seed in range(seeds)
    ]


def _check(
    batch_sizes: Sequence[int],
    samples: int,
    scaling: str,
    factors: Sequence[float],
    seeds: int,
    tolerance: float,
) -> None:
    if not batch_sizes:
        raise ArgumentError("`batch_sizes` must hold at least one batch size")
    for size in batch_sizes:
        check_whole("batch_sizes", size, 1)
    check_whole("samples", samples, 1)
    check_whole("seeds", seeds, 1)
    if samples < max(batch_sizes):
        raise ArgumentError(
            f"`samples` must be enough for a step at every batch size, at least "
            f"{max(batch_sizes)}; got {samples}"
        )
    if scaling not in SCALINGS:
        raise ArgumentError(f"`scaling` must be one of {', '.join(SCALINGS)}; got {scaling!r}")
    if not factors or not all(0 < factor < math.inf for factor in factors):
        raise ArgumentError(f"`factors` must be positive numbers; got {list(factors)}")
    if not 0 < tolerance < math.inf:
        raise ArgumentError(f"`tolerance` must be positive; got {tolerance!r}")
