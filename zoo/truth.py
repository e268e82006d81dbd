"""Gradients and products with the Hessian of every unit, by autograd alone.

Nothing here is gradnoise's: given are only the samples (or groups of them) that it measured and the
seeds of their draws.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from .case import Losses

STEPS = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6)  # of differences of gradients


def seed(number: int) -> None:
    """The state of all generators from which a unit draws."""
    torch.manual_seed(number)
    np.random.seed(number)
    random.seed(number)


def pick(batch: Any, index: Any) -> Any:
    """The entries at an index of every tensor of a batch."""
    if isinstance(batch, dict):
        return {name: pick(item, index) for name, item in batch.items()}
    if isinstance(batch, (tuple, list)):
        return type(batch)(pick(item, index) for item in batch)
    return batch[index] if isinstance(batch, Tensor) else batch


class Units:
    """The units that a problem holds.

    Args:
        model, own: the model and its loss, written out.
        batches: (samples, seeds or None) as gradnoise holds them.
        is_group: whether an entry of a batch is a group.
    """

    def __init__(self, model: nn.Module, own: Losses, batches: list[Any], is_group: bool) -> None:
        self.model, self._own, self._batches, self._is_group = model, own, batches, is_group
        self.parameters = [p for p in model.parameters() if p.requires_grad]

    def losses(self) -> Iterator[Tensor]:
        """The loss of one unit after the other, with its graph."""
        for batch, seeds in self._batches:
            if self._is_group:
                for index in range(len(seeds)):
                    seed(int(seeds[index]))
                    yield self._own(self.model, pick(batch, index)).mean()
            elif seeds is None:
                for index in range(_count(batch)):
                    yield self._own(self.model, pick(batch, slice(index, index + 1))).sum()
            else:  # random numbers are drawn for a micro-batch at once
                seed(int(seeds[0]))
                yield from self._own(self.model, batch)

    def gradients(self) -> Tensor:
        """One row for each unit, shape (n, P)."""
        return torch.stack([self._gradient(loss).detach() for loss in self.losses()])

    def product(self, vector: Tensor) -> Tensor:
        """Hv with H the mean over units, by two backward passes through each."""
        total, count = torch.zeros_like(vector), 0
        with sdpa_kernel(SDPBackend.MATH):
            for loss in self.losses():
                slope = self._gradient(loss, create_graph=True) @ vector
                total, count = total + self._gradient(slope).detach(), count + 1
        return total / count

    def difference(self, vector: Tensor) -> Tensor:
        """The same by central differences of gradients, for losses that torch derives once.

        Of the steps, that whose result is nearest to that of the next one.
        """
        found = [self._difference(step * vector) / (2 * step) for step in STEPS]
        changes = [float((a - b).norm()) for a, b in itertools.pairwise(found)]
        return found[changes.index(min(changes)) + 1]

    def _difference(self, step: Tensor) -> Tensor:
        ends = []
        for sign in (1, -1):
            self._move(sign * step)
            ends.append(self.gradients().mean(0))
            self._move(-sign * step)
        return ends[0] - ends[1]

    def _move(self, step: Tensor) -> None:
        parts = torch.split(step, [p.numel() for p in self.parameters])
        with torch.no_grad():
            for parameter, part in zip(self.parameters, parts, strict=True):
                parameter += part.view_as(parameter)

    def _gradient(self, loss: Tensor, *, create_graph: bool = False) -> Tensor:
        if not loss.requires_grad:
            return torch.cat([torch.zeros_like(p).double().flatten() for p in self.parameters])
        found = torch.autograd.grad(
            loss, self.parameters, create_graph=create_graph, retain_graph=True, allow_unused=True
        )
        return torch.cat(
            [
                (torch.zeros_like(p) if g is None else g.to_dense() if g.is_sparse else g)
                .double()
                .flatten()
                for g, p in zip(found, self.parameters, strict=True)
            ]
        )


def _count(batch: Any) -> int:
    if isinstance(batch, Tensor):
        return len(batch)
    entries = batch.values() if isinstance(batch, dict) else batch
    return next(_count(entry) for entry in entries if isinstance(entry, (Tensor, dict, tuple)))
