"""Vectors over the parameters of a model that ranks share, of which each rank has its parts."""

from __future__ import annotations

import torch
from torch import Tensor

from ..tensors.space import Space
from ..tensors.trees import TensorDict, flatten
from .shards import Shards


class ShardedSpace(Space):
    """Vectors of length P, of which each rank has the entries of its parts of the parameters.

    Args:
        shards: the parameters.
        device: of the vectors.
    """

    is_sharded = True

    def __init__(self, shards: Shards, device: torch.device) -> None:
        shapes = {name: own.shape for name, own in shards.local_parts().items()}
        super().__init__(sum(own.numel() for own in shards.sharded.values()), device, shapes)
        self._shards, self.local_size = shards, sum(self.sizes)
        self.largest_local_size = shards.largest_local_size

    def over(self, sums: Tensor) -> Tensor:
        return self._shards.summed(sums)

    def largest(self, vector: Tensor) -> Tensor:
        own = super().largest(vector)
        return own.new_tensor(self._shards.largest(float(own)))

    def random(self, source: torch.Generator) -> Tensor:
        vector = flatten([*self._shards.normals(source).values()])
        return vector / self.norm(vector)

    def refuse(self, why: str) -> None:
        super().refuse(self._shards.any_of(why))

    def flat(self, named: TensorDict) -> Tensor:
        return flatten([*self._shards.as_local_parts(named).values()]).to(self.device)

    def named(self, vector: Tensor) -> TensorDict:
        return self._shards.as_dtensors(super().named(vector))
