"""One backward pass per sample: slow, right for any model, the reference of the other engines."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from ..tensors.trees import Batch, sample_count, select
from .contract.engine import Engine
from .contract.summary import Chunk


class Loop(Engine):
    """Differentiates the loss of one sample after the other."""

    name = "loop"

    def chunks(self, batch: Batch) -> Iterator[Chunk]:
        names = self.objective.parameters
        if self.objective.unit.is_replayed and not self.objective.unit.is_group:
            yield from self._through_one_graph(batch)
            return
        for index in range(sample_count(batch)):
            loss = self.objective.losses(select(batch, slice(index, index + 1)))
            gradients = self.objective.differentiate(loss, torch.ones_like(loss))
            rows = [g.unsqueeze(0) for g in gradients]
            yield Chunk(loss.detach(), dict(zip(names, rows, strict=True)))

    def _through_one_graph(self, batch: Batch) -> Iterator[Chunk]:
        """Of losses that are random only within the whole micro-batch."""
        losses = self.objective.losses(batch)
        for index, one in enumerate(torch.eye(len(losses)).to(losses)):
            gradients = self.objective.differentiate(losses, one, keep_graph=True)
            rows = [g.unsqueeze(0) for g in gradients]
            own = dict(zip(self.objective.parameters, rows, strict=True))
            yield Chunk(losses[index : index + 1].detach(), own)
