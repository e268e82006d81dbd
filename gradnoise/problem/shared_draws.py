"""Whether the samples of a batch share random numbers: noise on weights, a layer that is dropped
for a whole batch, one diffusion time for all."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..errors import CoupledSamplesError
from ..tensors.trees import sample_count, select, widen
from .objective import Objective
from .unit import Seeded

DRAWS, LOOKED_AT = 8, 8
SIGNIFICANT = 6.0  # standard deviations
SHARED = "the samples of a batch share random numbers"


def shares_draws(objective: Objective, batch: Seeded) -> bool:
    """Whether a part of the draws is the same for all samples.

    One sample is put into all m places of the batch. Over D draws the variance of the mean of its m
    losses is that of one loss over m where each place has its own draw, and larger where they
    share it. The ratio, of k samples together, is an F of k(D - 1) and kD(m - 1) degrees of
    freedom.
    """
    count = sample_count(batch)
    if count < 2:
        return False
    first, second = (_losses(objective, batch, draw) for draw in (0, 1))
    chosen = (first - second).abs().argsort(descending=True)[:LOOKED_AT]  # whose draws show
    between = within = 0.0
    for k, index in enumerate(chosen):
        same = Seeded(select(batch.batch, index.expand(count)), batch.seeds)
        draws = range(k * DRAWS, (k + 1) * DRAWS)
        found = torch.stack([_losses(objective, same, draw) for draw in draws])
        within += float(found.var(1).mean())
        between += count * float(found.mean(1).var())
    if within == 0:
        return between > 0
    freedom = len(chosen) * (DRAWS - 1), len(chosen) * DRAWS * (count - 1)
    return _deviations(between / within, *freedom) > SIGNIFICANT


def shared_error() -> CoupledSamplesError:
    """The error where such samples are to be measured one by one."""
    return CoupledSamplesError(
        f"{SHARED} (noise on weights, a layer dropped for the whole batch), so that the noise of a "
        f"batch is not that of its samples. Measure groups of samples, with unit='group' and the "
        f"batch size of training as group_size; or call model.eval()."
    )


def _losses(objective: Objective, batch: Seeded, draw: int) -> Tensor:
    return widen(objective.losses(Seeded(batch.batch, batch.seeds + draw)).detach())


def _deviations(ratio: float, above: int, below: int) -> float:
    """An F of so many degrees of freedom as a normal variable (Wilson and Hilferty 1931)."""
    root: float = ratio ** (1 / 3)
    a, b = 2 / (9 * above), 2 / (9 * below)
    return ((1 - b) * root - (1 - a)) / math.sqrt(b * root**2 + a)
