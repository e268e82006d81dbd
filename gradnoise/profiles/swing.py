"""`gn.swing`: how much of |G|² is the swing of the iterate, from averaged weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ArgumentError
from ..estimators.noise.noise_scale import find_noise_scale
from ..estimators.report import line, report
from ..measurement.opened import Opened
from ..moments.moments import GradientMoments
from ..problem.losses.loss_fn import LossFn
from ..problem.options import Options
from ..problem.samples import MICRO_BATCH
from ..problem.state.wrappers import bare_model
from ..statistics.estimate import Estimate
from ..statistics.ratio import ratio


@dataclass(frozen=True)
class NoiseAt:
    """The noise of the gradient at some weights.

    Args:
        loss: L.
        grad_sq_norm, trace_cov: |G|² and trΣ, in loss²/parameter².
        simple_noise_scale: B_simple = trΣ/|G|², in samples.
        grad_curvature, trace_hessian_cov: GᵀHG and tr(HΣ), in loss³/parameter⁴; None where not
            asked for.
        noise_scale: B_noise = tr(HΣ)/GᵀHG, in samples; None likewise.
    """

    loss: Estimate
    grad_sq_norm: Estimate
    trace_cov: Estimate
    simple_noise_scale: Estimate
    grad_curvature: Estimate | None = None
    trace_hessian_cov: Estimate | None = None
    noise_scale: Estimate | None = None


@dataclass(frozen=True)
class Swing:
    """The noise of the gradient where the weights are and at their average; `print` it.

    Args:
        share: 1 - |G_avg|²/|G|², the part of |G|² that is gone at the averaged weights. Negative
            where the gradient is larger there.
        iterate, averaged: at the weights of the model, and at the averaged ones; see `NoiseAt`.
            Lists of either can be pooled (`gn.pool`).

    Source: as for `swing`.
    """

    share: Estimate
    iterate: NoiseAt
    averaged: NoiseAt

    def __str__(self) -> str:
        lines = [line("share of |G|² that is swing", self.share)]
        for where, noise in (("here", self.iterate), ("averaged", self.averaged)):
            lines += [
                line(f"loss L, {where}", noise.loss),
                line(f"|G|², {where}", noise.grad_sq_norm),
                line(f"trΣ, {where}", noise.trace_cov),
                line(f"B_simple, {where}", noise.simple_noise_scale, "samples"),
            ]
            if noise.noise_scale is not None:
                lines.append(line(f"B_noise, {where}", noise.noise_scale, "samples"))
        return report("the weights of the model (here), and averaged weights", lines)


def swing(
    model: nn.Module,
    loss_fn: LossFn | nn.Module,
    data: Any,
    averaged: nn.Module | Mapping[str, Tensor],
    *,
    curvature: bool = False,
    optimizer: torch.optim.Optimizer | None = None,
    metric: str = "auto",
    engine: str = "auto",
    population: str | int = "dataset",
    max_samples: int | None = 4096,
    level: float = 0.95,
    seed: int = 0,
    micro_batch: int = MICRO_BATCH,
    unit: str = "auto",
    group_size: int | None = None,
    process_group: Any = None,
) -> Swing:
    """How much of |G|² is the iterate's swing along the sharp directions.

    At a learning rate that trains fast the weights swing across the sharp directions of the loss
    from step to step. The mean gradient G is then mostly the slope of that valley, which every step
    undoes, and not the way down. At the average of the last weights, or after a few steps with a
    learning rate that falls to zero (`gn.cooled`), it is gone:

        share = 1 - |G_avg|²/|G|²

    with Fieller's interval; both gradients are of the same samples. B_simple and, with `curvature`,
    B_noise are measured at both. Cost: two passes over the samples at each (about 50 to 100 with
    `curvature`).

    Args:
        model: any `nn.Module`; it is left unchanged. Meanwhile it holds the averaged weights.
        loss_fn, data: as for `gn.profile`.
        averaged: a `torch.optim.swa_utils.AveragedModel`, an average of your own, or any module
            with the parameters and buffers of `model` by name; or the tensors by name.
        curvature: measure B_noise as well.
        optimizer, metric, engine, population, max_samples, level, seed, micro_batch, unit,
            group_size, process_group: as for `gn.gradient_moments`.

    Returns:
        Swing.

    Raises:
        ArgumentError: `averaged` has other parameters than `model`.
        GradNoiseError: see `gn.gradient_moments`.

    Example:
        >>> data = (torch.ones(4, 1), torch.tensor([[0.0], [2.0], [0.0], [2.0]]))
        >>> model, ema = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
        >>> _ = nn.init.constant_(model.weight, 3.0), nn.init.constant_(ema.weight, 2.0)
        >>> print(swing(model, nn.MSELoss(), data, ema).share)  # G = 2(w - 1): 1 - 2²/4²
        0.750 (exact)
    """
    options = Options(
        optimizer=optimizer, metric=metric, engine=engine, population=population,
        max_samples=max_samples, level=level, seed=seed, micro_batch=micro_batch,
        unit=unit, group_size=group_size, process_group=process_group,
    )  # fmt: skip
    opened = Opened.open(model, loss_fn, data, options)
    inner = bare_model(model)
    tensors = _tensors(inner, averaged)
    here, moments = _noise(opened, curvature)
    with _holding(inner, tensors):
        there, averaged_moments = _noise(opened.anew(), curvature)
    return Swing(_share(moments, averaged_moments), here, there)


def _noise(opened: Opened, curvature: bool) -> tuple[NoiseAt, GradientMoments]:
    with opened.problem.guard():
        moments = opened.moments()
    told = opened.in_samples(moments)
    found = NoiseAt(told.loss, told.grad_sq_norm, told.trace_cov, told.simple_noise_scale)
    if not curvature:
        return found, moments
    scale = find_noise_scale(opened)
    parts = scale.grad_curvature, scale.trace_hessian_cov, scale.hessian
    names = ("grad_curvature", "trace_hessian_cov", "noise_scale")
    return replace(found, **dict(zip(names, parts, strict=True))), moments


def _share(here: GradientMoments, there: GradientMoments) -> Estimate:
    """1 - |G_avg|²/|G|²; the sampling errors of both are correlated, their samples are the same."""
    parts = [moments.grad_sq_norm for moments in (there, here)]
    variances = tuple(part.stderr**2 for part in parts)
    shared = 0.0
    if here.sampling_factor:
        both = torch.stack([moments.deviations()[2] for moments in (there, here)])
        shared = here.spread_factor * float(torch.cov(both)[0, 1])
    n = here.count
    left = ratio(
        float(parts[0]), float(parts[1]), variances=(variances[0], variances[1]),
        covariance=shared, level=here.level, samples=n, freedom=n - 1, positive_denominator=True,
    )  # fmt: skip
    return replace(left, value=1 - left.value, low=1 - left.high, high=1 - left.low)


def _tensors(model: nn.Module, averaged: nn.Module | Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The averaged tensors by the names that they have in the model."""
    given = averaged
    if isinstance(averaged, nn.Module):
        given = bare_model(averaged).state_dict(keep_vars=True)
    if not isinstance(given, Mapping):
        raise ArgumentError(
            f"`averaged` must be a module or tensors by name; got {type(averaged).__name__}"
        )
    own = model.state_dict(keep_vars=True)
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    for name in sorted(trainable | (own.keys() & given.keys())):
        there = given.get(name)
        if not isinstance(there, Tensor) or there.shape != own[name].shape:
            kind = "nothing" if there is None else type(there).__name__
            found = f"shape {tuple(there.shape)}" if isinstance(there, Tensor) else kind
            raise ArgumentError(
                f"`averaged` must hold {name!r} of shape {tuple(own[name].shape)}, as `model` "
                f"does; got {found}. Pass an average of this model's own weights"
            )
    return {name: given[name].detach().clone() for name in own.keys() & given.keys()}


@contextmanager
def _holding(model: nn.Module, tensors: Mapping[str, Tensor]) -> Iterator[None]:
    """The model with other values of its parameters and buffers; its own are put back."""
    own = model.state_dict(keep_vars=True)
    found = {name: own[name].detach().clone() for name in tensors}
    try:
        for name, value in tensors.items():
            own[name].data.copy_(value)
        yield
    finally:
        for name, value in found.items():
            own[name].data.copy_(value)
