"""Vectors over the parameters of a model that ranks share, of which each rank has its parts."""

from __future__ import annotations

import torch
from torch import Tensor

from ..linalg.space import Space
from ..problem.objective import Objective
from ..problem.shards import Shards
from ..tensors.trees import TensorDict, flatten


class DividedSpace(Space):
    """Vectors of length P, of which each rank has the entries of its parts of the parameters.

    Args:
        shards: the parameters.
        device: of the vectors.
    """

    is_divided = True

    def __init__(self, shards: Shards, device: torch.device) -> None:
        shapes = {name: own.shape for name, own in shards.parts().items()}
        super().__init__(sum(own.numel() for own in shards.kept.values()), device, shapes)
        self._shards, self.width = shards, sum(self.sizes)
        self.widest = shards.widest

    def over(self, sums: Tensor) -> Tensor:
        return self._shards.summed(sums)

    def largest(self, vector: Tensor) -> Tensor:
        own = super().largest(vector)
        return own.new_tensor(self._shards.largest(float(own)))

    def random(self, source: torch.Generator) -> Tensor:
        vector = flatten([*self._shards.drawn(source).values()])
        return vector / self.norm(vector)

    def flat(self, named: TensorDict) -> Tensor:
        return flatten([*self._shards.as_parts(named).values()]).to(self.device)

    def named(self, vector: Tensor) -> TensorDict:
        return self._shards.as_dtensors(super().named(vector))


def space_of(objective: Objective) -> Space:
    """Of vectors over the parameters of a model."""
    if objective.shards is None:
        shapes = {name: p.shape for name, p in objective.parameters.items()}
        return Space(objective.size, objective.device, shapes)
    return DividedSpace(objective.shards, objective.device)
