"""Which rows of all ranks are a rank's own."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Share:
    """n rows, those of the first rank first.

    Args:
        counts: rows of every rank.
        rank: this one.

    Example:
        >>> Share((2, 3), rank=1).of(torch.arange(5))
        tensor([2, 3, 4])
    """

    counts: tuple[int, ...]
    rank: int = 0

    @property
    def count(self) -> int:
        """n."""
        return sum(self.counts)

    @property
    def start(self) -> int:
        """The place of this rank's first row."""
        return sum(self.counts[: self.rank])

    def of(self, rows: Tensor, dim: int = 0) -> Tensor:
        """This rank's part of all rows."""
        return rows.narrow(dim, self.start, self.counts[self.rank])

    def joined(self, other: Share) -> Share:
        """The rows of both; those of a rank stay together."""
        both = zip(self.counts, other.counts, strict=True)
        return replace(self, counts=tuple(map(sum, both)))

    def chosen(self, mask: Tensor) -> Share:
        """The rows where a mask of shape (n,) holds."""
        parts = torch.split(mask, list(self.counts))
        return replace(self, counts=tuple(int(part.sum()) for part in parts))

    def at(self, positions: Tensor) -> Share:
        """The rows at sorted positions, which may repeat."""
        ends = torch.tensor(self.counts).cumsum(0)
        places = torch.bucketize(positions, ends.to(positions.device), right=True)
        counts = torch.bincount(places, minlength=len(self.counts))
        return replace(self, counts=tuple(counts.tolist()))
