"""The spectral density of the Hessian of a model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from ...linalg.density.spectral_density import SpectralDensity
from ...linalg.operator import MEMORY_BUDGET
from ...measurement.opened import Opened
from ...operators.preconditioned import with_decay
from ...problem.losses.loss_fn import LossFn
from ...problem.options import Options
from ...problem.samples import MICRO_BATCH


def spectral_density(
    model: nn.Module,
    loss_fn: LossFn | nn.Module,
    data: Any,
    *,
    probes: int = 4,
    steps: int = 80,
    hvp: str = "auto",
    optimizer: torch.optim.Optimizer | None = None,
    metric: str = "auto",
    max_samples: int | None = 4096,
    seed: int = 0,
    micro_batch: int = MICRO_BATCH,
    unit: str = "auto",
    group_size: int | None = None,
    process_group: Any = None,
    memory_budget: int = MEMORY_BUDGET,
    level: float = 0.95,
    tick: Callable[[int], Any] | None = None,
) -> SpectralDensity:
    """Spectral density of the Hessian of the mean loss, by stochastic Lanczos quadrature.

    (1/P) Σ_j δ(λ - λ_j), λ in loss/parameter², for `probes` × `steps` Hessian products. Intervals
    are about the Hessian of the measured samples; that of the population has a narrower spectrum.

    Args:
        model, loss_fn, data: as for `gradient_moments`.
        probes, steps, level, tick: as for `SpectralDensity.of`.
        hvp, max_samples, micro_batch, memory_budget, unit, group_size, process_group: as for
            `Hessian`.
        optimizer, metric: as for `sharpness`: with "optimizer" the matrix is
            P^-½(H + D)P^-½ + E of `Preconditioned`.
        seed: of the random vectors and of the choice of samples.

    Returns:
        SpectralDensity.

    Raises:
        GradNoiseError: see `Hessian` and `SpectralDensity.of`.

    Source: Ubaru, Chen and Saad 2017 (SIAM J. Matrix Anal. Appl. 38); Ghorbani, Krishnan and Xiao
    2019 (arXiv:1901.10159); docs/theory/spectrum.md.

    Example:
        >>> model = nn.Linear(2, 1, bias=False)
        >>> data = (torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.zeros(2, 1))
        >>> seen = spectral_density(model, nn.MSELoss(), data)  # H = 2 XᵀX/n = diag(1, 4)
        >>> round(seen.lower_edge, 4), round(seen.upper_edge, 4)
        (1.0, 4.0)
    """
    options = Options(
        optimizer=optimizer, metric=metric, max_samples=max_samples, level=level, seed=seed,
        micro_batch=micro_batch, unit=unit, group_size=group_size, process_group=process_group,
    )  # fmt: skip
    opened = Opened.open(model, loss_fn, data, options)
    hessian = opened.hessian(hvp=hvp, memory_budget=memory_budget)
    with opened.problem.guard():
        return SpectralDensity.of(
            with_decay(hessian), probes=probes, steps=steps, seed=seed, level=level, tick=tick
        )
