"""The moments of a model's per-sample gradients in one call."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import nn

from ..moments.moments import GradientMoments
from ..problem.gathering import by_layers_or_whole
from ..problem.losses.loss_fn import LossFn
from ..problem.one_pass import in_one_pass
from ..problem.options import AUTO, Options
from ..problem.problem import Problem
from ..problem.samples import MICRO_BATCH
from .opened import Opened


def gradient_moments(
    model: nn.Module,
    loss_fn: LossFn | nn.Module,
    data: Any,
    *,
    optimizer: torch.optim.Optimizer | None = None,
    metric: str = "auto",
    engine: str = "auto",
    population: str | int = "dataset",
    variance: bool = False,
    intervals: bool = True,
    max_samples: int | None = None,
    level: float = 0.95,
    seed: int = 0,
    micro_batch: int = MICRO_BATCH,
    unit: str = "auto",
    group_size: int | None = None,
    process_group: Any = None,
    gather: str = AUTO,
) -> GradientMoments:
    """Mean gradient, |G|², trΣ and B_simple of a model, in one pass over the samples.

    Σ = Cov(g_i) of the per-sample gradients g_i, with 1/(n - 1); |G|² = |ḡ|² - (1/n - 1/N)trΣ is
    unbiased for a population of N; B_simple = trΣ/|G|² in samples (McCandlish et al. 2018,
    arXiv:1812.06162, eq. 2.9). |G|² and trΣ are in loss²/parameter². Memory is that of one
    micro-batch and a few copies of the gradient.

    Args:
        model: any `nn.Module`; it is left unchanged.
        loss_fn: `loss_fn(model, batch)` with one loss per sample, or a torch criterion.
        data: a DataLoader, a Dataset, a list of batches or of single samples, or one batch. Samples
            may differ in size (graphs, detection targets, sequences): `loss_fn` gets them as the
            collate function of the loader puts them together.
        optimizer: the one that trains the model.
        metric: "optimizer": P^-½g_i in place of g_i, with P of the optimizer's state as in
            `Preconditioned`, so that |G|² is GᵀP⁻¹G and trΣ is tr(P⁻¹Σ); or "euclidean"; "auto":
            "optimizer" for adaptive ones that have taken steps, else "euclidean".
        engine: "auto", or by name: "hooks", "functional", "backpack" or "loop".
        population: "dataset", "distribution" or a number N.
        variance: also keep the variance of every coordinate, the diagonal of Σ.
        intervals: a second pass for the intervals; not needed when all of N is measured.
        max_samples: n at most; None measures all.
        level: coverage of the intervals.
        seed: of the choice of samples.
        micro_batch: samples evaluated at once.
        unit: "sample"; "group": groups of samples, for losses that depend on the other samples of
            a batch (batch normalisation in training mode, contrastive losses, one number for a
            batch); "auto": samples where their losses are independent, else groups. Σ is then b
            times the covariance of the gradients of groups of b samples.
        group_size: b; by default the batch size of a DataLoader or of a list of batches, or 32 at
            most.
        process_group: of torch.distributed, or a DeviceMesh: its ranks measure together. All call
            this with the same model and options, each with its own part of the data, which may be
            empty; data that several ranks have in common are counted once. The results are those of
            all samples, and equal on all ranks. None: this process alone.
        gather: of a sharded model, "model": all parameters on each rank for the time of the call.
            Of one of `fully_shard`, "layers": those of one layer at a time, in the passes of FSDP
            itself; `mean` and `variance` are then DTensors in the layout of the parameters, and no
            rank holds more of them than its part. "auto": the model, unless it is of `fully_shard`
            and 24 times its parameters are more than the memory of a rank.

    Returns:
        GradientMoments.

    Raises:
        ShardedError: gather="layers", and that is not enough: random or coupled losses, weights,
            layers that the hooks engine does not know, operations that depend on the data.
        GradNoiseError: see `Objective`, `Samples.draw`, `choose` and `Preconditioned`.

    Example:
        >>> model = nn.Linear(1, 1, bias=False)
        >>> data = (torch.ones(4, 1), torch.tensor([[0.0], [2.0], [0.0], [2.0]]))
        >>> float(gradient_moments(model, nn.MSELoss(), data).trace_cov)  # g_i = 2(w - y_i)
        5.33...
    """
    options = Options(
        optimizer=optimizer, metric=metric, engine=engine, population=population,
        max_samples=max_samples, level=level, seed=seed, micro_batch=micro_batch,
        unit=unit, group_size=group_size, process_group=process_group, gather=gather,
    )  # fmt: skip

    def found(problem: Problem) -> GradientMoments:
        opened = Opened.of(problem, options)
        told = opened.in_samples(opened.moments(variance=variance, intervals=intervals))
        shards, squares = problem.objective.shards, told.coordinate_sq
        if shards is None:
            return told
        squares = squares and shards.as_dtensors(squares)
        return replace(told, mean=shards.as_dtensors(told.mean), coordinate_sq=squares)

    return by_layers_or_whole(lambda own: in_one_pass(found, model, loss_fn, data, own), options)
