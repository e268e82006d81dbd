"""Noise scale and sharpness of the block of each layer, with all other layers frozen."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from ...errors import ArgumentError
from ...linalg.deflation import explore
from ...linalg.eigen_options import EigenOptions
from ...measurement.opened import Opened
from ...moments.layer import by_module
from ...operators.preconditioned import with_decay
from ...problem.losses.loss_fn import LossFn
from ...problem.options import Options
from ...problem.problem import Problem
from ...problem.samples import MICRO_BATCH
from ...problem.state.guard import frozen
from ...statistics.estimate import Estimate
from ...statistics.transform import in_samples
from ..curvature.extreme_eigenvalue import half_sharpness, sample_curvatures, sharpness_estimate
from .noise_scale import (
    ACCURACY,
    PER_ERROR,
    PROBES,
    STEPS,
    check_accuracy,
    measure_noise_scale,
    sign_probes,
)
from .sums import NoiseScale


@dataclass(frozen=True)
class LayerScale:
    """One layer measured alone, all other parameters kept fixed.

    Args:
        name: of the layer.
        parameters: names of its parameters.
        sharpness: λ_l in loss/parameter², the largest eigenvalue of its block H_ll; at most λ of
            the whole model. A step in this layer alone is unstable at this point beyond 2/λ_l.
        noise: B_simple and B_noise = tr(H_llΣ_ll)/(G_lᵀH_llG_l) in samples, with their parts.

    Source: as for `layer_noise_scales`.
    """

    name: str
    parameters: tuple[str, ...]
    sharpness: Estimate
    noise: NoiseScale


def layer_noise_scales(
    model: nn.Module,
    loss_fn: LossFn | nn.Module,
    data: Any,
    *,
    layers: Mapping[str, Iterable[str]] | Iterable[str] | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    metric: str = "auto",
    population: str | int = "dataset",
    engine: str = "auto",
    probes: int = PROBES,
    accuracy: float = ACCURACY,
    tol: float = 1e-3,
    max_samples: int | None = 4096,
    level: float = 0.95,
    seed: int = 0,
    micro_batch: int = MICRO_BATCH,
    unit: str = "auto",
    group_size: int | None = None,
    process_group: Any = None,
) -> dict[str, LayerScale]:
    """λ and B_noise of single layers, from the diagonal blocks of the Hessian and of Σ.

    With H_ll and Σ_ll the blocks of a layer, λ_l = λ_max(H_ll) in loss/parameter² and
    B_noise = tr(H_llΣ_ll)/(G_lᵀH_llG_l) in samples. Curvature between layers is left out, so the
    blocks do not add up to the whole; the shares in `profile(...).layers` do. Each layer is a
    separate measurement with all others frozen, on the same samples, and costs about as much as
    `noise_scale` and `sharpness` together.

    Args:
        model, loss_fn, data, population, max_samples, level, seed, micro_batch, unit, group_size,
            process_group: as for `gradient_moments`.
        layers: names of modules or parameters, a module with all modules inside it; or
            name -> names of parameters, such as those of one group of an optimizer; default: every
            module that holds parameters directly.
        optimizer, metric: as for `sharpness` and `noise_scale`, with P, D and E of the layer.
        engine, probes, accuracy: as for `noise_scale`.
        tol: relative residual at which λ_l is accepted.

    Returns:
        dict of LayerScale by name.

    Raises:
        GradNoiseError: see `gradient_moments` and `sharpness`.
        ArgumentError: a layer without trainable parameters, or an option out of range.

    Source: McCandlish et al. 2018 (arXiv:1812.06162), eq. 2.8, for the parameters of one layer.

    Example:
        >>> model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False))
        >>> for p, w in zip(model.parameters(), (2.0, 3.0)):
        ...     _ = nn.init.constant_(p, w)
        >>> data = (torch.ones(4, 1), torch.tensor([[0.0], [2.0], [0.0], [2.0]]))
        >>> scales = layer_noise_scales(model, nn.MSELoss(), data)  # loss (w₁w₂ - y)²
        >>> [round(float(scale.sharpness), 3) for scale in scales.values()]  # 2w₂², 2w₁²
        [18.0, 8.0]
    """
    options = Options(
        optimizer=optimizer, metric=metric, engine=engine, population=population,
        max_samples=max_samples, level=level, seed=seed, micro_batch=micro_batch,
        unit=unit, group_size=group_size, process_group=process_group,
    )  # fmt: skip
    check_accuracy(accuracy)
    problem = Problem.open(model, loss_fn, data, options)
    members = _members(list(problem.objective.parameters), layers)
    found = {}
    with problem.guard():
        for name, parameters in members.items():
            with _alone(problem, parameters) as part:
                opened = Opened(part, options)
                found[name] = _measure(opened, name, tuple(parameters), probes, accuracy, tol)
    return found


def _members(
    trainable: list[str], layers: Mapping[str, Iterable[str]] | Iterable[str] | None
) -> dict[str, list[str]]:
    """Names of trainable parameters by layer."""
    if layers is None:
        return by_module(trainable)
    if isinstance(layers, str):
        layers = [layers]
    groups = layers if isinstance(layers, Mapping) else {name: [name] for name in layers}
    members = {
        key: [one for one in trainable if any(_within(one, name) for name in names)]
        for key, names in ((key, list(names)) for key, names in groups.items())
    }
    for key, names in members.items():
        if not names:
            raise ArgumentError(
                f"`layers` names {key!r}, which holds no trainable parameter; the parameters are "
                f"{', '.join(trainable)}"
            )
    return members


def _within(parameter: str, name: str) -> bool:
    """Whether a parameter is `name`, or inside the module `name`; "" is the whole model."""
    return parameter == name or name == "" or parameter.startswith(f"{name}.")


@contextmanager
def _alone(problem: Problem, names: list[str]) -> Iterator[Problem]:
    """The problem with all parameters except these frozen."""
    objective = problem.objective
    with frozen([p for name, p in objective.parameters.items() if name not in names]):
        yield replace(problem, objective=objective.again())


def _measure(
    opened: Opened,
    name: str,
    parameters: tuple[str, ...],
    probes: int,
    accuracy: float,
    tol: float,
) -> LayerScale:
    problem, seed, level = opened.problem, opened.options.seed, opened.options.level
    with problem.guard():
        moments, hessian = opened.moments(), opened.hessian()
        problem = hessian.problem
        # the Krylov space of H + E gives another M than that of H; both leave tr(HΣ) unbiased
        pairs, deflation = explore(with_decay(hessian), tol=tol, steps=STEPS, seed=seed)
        top, sampled = pairs.vectors[:, 0], moments.sampling_factor > 0
        curvatures = sample_curvatures(problem, top) if sampled else None
        aim = EigenOptions(tol=tol, seed=seed)
        halves = half_sharpness(problem, top, aim) if sampled else None
        signs = sign_probes(moments, probes, seed)
        noise = measure_noise_scale(
            hessian,
            opened.engine,
            moments,
            signs,
            deflation=deflation,
            accuracy=accuracy / PER_ERROR,
        )
    error = hessian.product_error
    sharpness = sharpness_estimate(pairs, curvatures, halves, problem.samples, level, error=error)
    size = opened.unit.size
    return LayerScale(
        name, parameters, in_samples(sharpness, size, keep=True), noise.in_samples(size)
    )
