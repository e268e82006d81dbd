"""Which samples each step of a run takes."""

from __future__ import annotations

import torch
from torch import Tensor

from ..tensors.random import generator

APART = 0x9E3779B9  # no order begins with the samples that a measurement with a small seed draws


class BatchOrder:
    """Which samples a step takes: a new permutation every epoch, an incomplete batch left out."""

    def __init__(self, count: int, batch_size: int, seed: int) -> None:
        self._count, self._size, self._seed = count, batch_size, seed
        self._epoch, self._permutation = -1, torch.empty(0)

    def rows(self, step: int) -> Tensor:
        """Indices of shape (B,)."""
        epoch, place = divmod(step, self._count // self._size)
        if epoch != self._epoch:
            source = generator(APART + 1_000_003 * self._seed + epoch)
            self._permutation = torch.randperm(self._count, generator=source)
            self._epoch = epoch
        return self._permutation[place * self._size : (place + 1) * self._size]
