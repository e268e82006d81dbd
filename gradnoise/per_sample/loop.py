"""One backward pass per sample: slow, right for any model, the reference of the other engines."""

from __future__ import annotations

from collections.abc import Iterator

from ..tensors.trees import Batch, sample_count, select
from .contract.engine import Engine
from .contract.summary import Chunk


class Loop(Engine):
    """Differentiates the loss of one sample after the other."""

    name = "loop"

    def chunks(self, batch: Batch) -> Iterator[Chunk]:
        for index in range(sample_count(batch)):
            loss = self.objective.losses(select(batch, slice(index, index + 1)))
            rows = [g.unsqueeze(0) for g in self.objective.differentiate(loss.sum())]
            yield Chunk(loss.detach(), dict(zip(self.objective.parameters, rows, strict=True)))
