"""The space of an operator's vectors: their inner products, and random ones."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..errors import OperatorError
from .random import random_vector
from .sums import by_parameter, dots, exact_overlaps, overlaps_by_parameter
from .trees import TensorDict, widen

DEPENDENT = 1e-6  # part of a vector outside of others, relative, that is no direction of its own


class Space:
    """Vectors of length P, whole in this process; see also `ShardedSpace`.

    Args:
        size: P.
        device: of the vectors.
        shapes: of the parameters by name, in the order of the entries; None where there are none.

    Attributes:
        shapes: as given; or of what is here of the parameters.
        local_size: entries of a vector that are here.
        largest_local_size: the most that any process has.
    """

    is_sharded = False

    def __init__(
        self, size: int, device: torch.device, shapes: Mapping[str, torch.Size] | None = None
    ) -> None:
        self.size = self.local_size = self.largest_local_size = size
        self.device, self.shapes = device, dict(shapes or {"": torch.Size([size])})

    @property
    def sizes(self) -> list[int]:
        """Entries of every parameter."""
        return [shape.numel() for shape in self.shapes.values()]

    def over(self, sums: Tensor) -> Tensor:
        """Sums over all coordinates, from those over the coordinates here."""
        return sums

    def largest(self, vector: Tensor) -> Tensor:
        """The largest entry in size, in float64."""
        return widen(vector.abs().max() if len(vector) else vector.new_zeros(()))

    def random(self, source: torch.Generator) -> Tensor:
        """A vector uniform on the unit sphere, float64 (float32 on MPS)."""
        return random_vector(self.size, source, self.device)

    def flat(self, named: TensorDict) -> Tensor:
        """A vector from its parts by parameter, in their order."""
        parts = (
            own.full_tensor() if hasattr(own, "full_tensor") else own for own in named.values()
        )
        return torch.cat([part.reshape(-1).to(self.device) for part in parts])

    def named(self, vector: Tensor) -> TensorDict:
        """The parts by parameter of a vector."""
        parts = torch.split(vector, self.sizes)
        return {name: p.view(s) for (name, s), p in zip(self.shapes.items(), parts, strict=True)}

    def inner(self, first: Tensor, second: Tensor) -> float:
        """The inner product of two vectors."""
        return float(self.over(dots(first[None], second[None])))

    def overlaps(self, rows: Tensor, vector: Tensor) -> Tensor:
        """Inner products with rows, added in float64, in the dtype of the vector."""
        return self.over(exact_overlaps(rows, vector)).to(vector)

    def norm(self, vector: Tensor) -> float:
        """The length of a vector."""
        return math.sqrt(self.inner(vector, vector))

    def by_parameter(self, first: Tensor, second: Tensor) -> Tensor:
        """Inner products of the parts by parameter, shape (p,), in float64."""
        return self.over(by_parameter(first, second, self.sizes))

    def overlaps_by_parameter(self, rows: Tensor, vector: Tensor) -> Tensor:
        """The same with rows (k, P), shape (k, p)."""
        return self.over(overlaps_by_parameter(rows, vector, self.sizes))

    def orthonormal(self, vectors: Sequence[Tensor]) -> Tensor:
        """Orthonormal rows that span the vectors, in their order, float64; fewer if dependent."""
        rows: list[Tensor] = []
        for vector in map(widen, vectors):
            left, whole = vector, self.norm(vector)
            for _ in range(2 if rows else 0):  # twice is enough, as in `Krylov`
                basis = torch.stack(rows)
                left = left - self.overlaps(basis, left) @ basis
            size = self.norm(left)
            if not size <= DEPENDENT * whole:
                rows.append(left / size)
        return torch.stack(rows) if rows else widen(vectors[0].new_zeros(0, self.local_size))

    def refuse(self, why: str) -> None:
        """Raise OperatorError where there is a reason, in any process that has a part."""
        if why:
            raise OperatorError(why)

    def is_finite(self, vector: Tensor) -> bool:
        """Whether all entries are."""
        return not bool(self.over(widen((~torch.isfinite(vector)).sum())))


def require_whole_vectors(space: Space, what: str) -> None:
    """Raise OperatorError where ranks hold parts of the vectors."""
    if space.is_sharded:
        raise OperatorError(
            f"{what} needs whole vectors, and ranks hold parts of them: build the operator with "
            f"gather='model'. gn.lanczos and products work with parts"
        )
