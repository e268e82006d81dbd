"""The space of an operator's vectors: their inner products, and random ones."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import OperatorError
from ..tensors.random import random_vector
from ..tensors.sums import dots, exact_overlaps
from ..tensors.trees import TensorDict, widen


class Space:
    """Vectors of length P, whole in this process; see also `DividedSpace`.

    Args:
        size: P.
        device: of the vectors.

    Attributes:
        width: entries of a vector that are here.
        widest: the most that any process has.
    """

    is_divided = False

    def __init__(self, size: int, device: torch.device) -> None:
        self.size = self.width = self.widest = size
        self.device = device

    def over(self, sums: Tensor) -> Tensor:
        """Sums over all coordinates, from those over the coordinates here."""
        return sums

    def largest(self, vector: Tensor) -> float:
        """The largest entry in size."""
        return float(vector.abs().max()) if len(vector) else 0.0

    def random(self, source: torch.Generator) -> Tensor:
        """A vector uniform on the unit sphere, float64 (float32 on MPS)."""
        return random_vector(self.size, source, self.device)

    def flat(self, named: TensorDict) -> Tensor:
        """A vector from its parts by parameter, in their order."""
        return torch.cat([part.reshape(-1).to(self.device) for part in named.values()])

    def named(self, vector: Tensor, shapes: dict[str, torch.Size]) -> TensorDict:
        """The parts by parameter of a vector."""
        parts = torch.split(vector, [shape.numel() for shape in shapes.values()])
        return {name: p.view(s) for (name, s), p in zip(shapes.items(), parts, strict=True)}

    def inner(self, first: Tensor, second: Tensor) -> float:
        """The inner product of two vectors."""
        return float(self.over(dots(first[None], second[None])))

    def overlaps(self, rows: Tensor, vector: Tensor) -> Tensor:
        """Inner products with rows, added in float64, in the dtype of the vector."""
        return self.over(exact_overlaps(rows, vector)).to(vector)

    def is_finite(self, vector: Tensor) -> bool:
        """Whether all entries are."""
        return not bool(self.over(widen((~torch.isfinite(vector)).sum())))


def whole_vectors(space: Space, what: str) -> None:
    """Raise OperatorError where ranks hold parts of the vectors."""
    if space.is_divided:
        raise OperatorError(
            f"{what} needs whole vectors, and ranks hold parts of them: build the operator with "
            f"gather='model'. gn.lanczos and products work with parts"
        )
