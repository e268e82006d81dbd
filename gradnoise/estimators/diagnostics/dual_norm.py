"""The noise scale (noise)²/‖G‖*² of steepest descent in a norm, whose dual norm is ‖·‖*.

Noise is a bound on E‖g_i - G‖*. ‖ḡ‖* overestimates ‖G‖*: without signal it is not zero. Here the
direction u with uᵀḡ = ‖ḡ‖* is computed from one half of the samples and the length uᵀḡ from the
other half, and with the halves exchanged, averaged over several random splits. On the average that
is 0 without signal, approaches ‖G‖* for a strong signal, and never exceeds it, since uᵀG ≤ ‖G‖* for
every such u.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...errors import check_whole
from ...moments.moments import ROUNDING
from ...statistics.estimate import Estimate, check_level
from ...statistics.ratio import ratio
from ...statistics.transform import squared
from ...tensors.random import generator
from ...tensors.trees import TensorDict, widen
from ..from_arrays.inputs import as_population
from .batch_tests import covariance_of

SPLITS = 8


@dataclass(frozen=True)
class Geometry:
    """A dual norm.

    Args:
        noise: of centred rows (n, …): its value, and the influence of every sample, (n,).
        direction: u for a mean gradient G, with uᵀG = ‖G‖*.
    """

    noise: Callable[[Tensor], tuple[float, Tensor]]
    direction: Callable[[Tensor], Tensor]


def dual_noise_scale(
    rows: TensorDict,
    geometry: Geometry,
    population: str | int,
    splits: int,
    level: float,
    seed: int,
) -> Estimate:
    """(noise)²/‖G‖*² of rows (n, …) by name; both parts are summed over the names first."""
    check_level(level)
    check_whole("splits", splits, 1)
    count = len(next(iter(rows.values())))
    factor = 1 / count - 1 / as_population(population, count)
    eps = max(torch.finfo(tensor.dtype).eps for tensor in rows.values())
    rows = {name: widen(tensor) for name, tensor in rows.items()}
    noises = [geometry.noise(tensor - tensor.mean(0)) for tensor in rows.values()]
    noise = _Noise(sum(v for v, _ in noises), torch.stack([i for _, i in noises]).sum(0), eps)
    attained = torch.stack([_along(t, geometry.direction(t.mean(0))) for t in rows.values()]).sum(0)
    lower = noise.over(attained, factor, level)
    if factor == 0:
        return squared(lower)
    halves = _halves(rows, geometry, splits, seed)
    upper = noise.over(halves, 2 * factor, level)
    return squared(replace(upper, low=min(lower.low, upper.value)))  # lower.low if the value is nan


@dataclass(frozen=True, eq=False)
class _Noise:
    """The noise of a geometry.

    Args:
        value: the bound on E‖g_i - G‖*.
        influence: of every sample on it, (n,).
        eps: relative rounding of the gradients.
    """

    value: float
    influence: Tensor
    eps: float

    def over(self, slopes: Tensor, factor: float, level: float) -> Estimate:
        """noise/mean slope with Fieller's interval; `factor` is 1/n - 1/N, or above it."""
        signal, rounding = float(slopes.mean()), ROUNDING * self.eps * self.value
        least = rounding**2 if signal <= rounding else 0.0
        return ratio(
            self.value,
            signal,
            variances=(
                factor * float(self.influence.var()),
                factor * float(slopes.var()) + least,
            ),
            covariance=factor * covariance_of(self.influence, slopes),
            level=level,
            samples=len(slopes),
            freedom=len(slopes) - 1,
            positive_denominator=True,
        )


def _along(rows: Tensor, direction: Tensor) -> Tensor:
    """uᵀg_i of every sample."""
    return rows.reshape(len(rows), -1) @ direction.reshape(-1)


def _halves(rows: TensorDict, geometry: Geometry, splits: int, seed: int) -> Tensor:
    """uᵀg_i with u from the half that does not contain i, averaged over splits, shape (n,)."""
    source = generator(seed)
    first = next(iter(rows.values()))
    found = first.new_zeros(len(first))
    for _ in range(splits):
        order = torch.randperm(len(first), generator=source).to(first.device)
        parts = order[: len(order) // 2], order[len(order) // 2 :]
        for half, other in (parts, parts[::-1]):
            for tensor in rows.values():
                direction = geometry.direction(tensor[other].mean(0))
                found[half] += _along(tensor[half], direction) / splits
    return found
