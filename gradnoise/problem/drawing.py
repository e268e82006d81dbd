"""How the samples of several ranks are drawn as one: each brings a part of the data, or all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Subset

from ..ranks.ranks import ALONE, Ranks
from ..tensors.fingerprint import fingerprints
from ..tensors.ragged import opened, tensors_in
from ..tensors.random import generator
from ..tensors.trees import Batch
from .items import fetched

LOOKED_AT = 3  # entries by which a data set is told from another one


@dataclass(frozen=True)
class Drawing:
    """A simple random sample without replacement out of the data of all ranks.

    Data that several ranks have in common (those of tensor parallelism, or one data set that a
    DistributedSampler would divide) are counted once, and divided among these ranks.

    Args:
        limit: n at most.
        seed: of the choice, the same on all ranks.
        ranks: those that draw.
    """

    limit: float
    seed: int = 0
    ranks: Ranks = ALONE

    def chosen(self, total: int, told: Any, *, in_order: bool) -> tuple[Tensor | None, Parts]:
        """Which of this rank's entries are taken, None for all; and what all ranks have.

        Args:
            total: entries here.
            told: the same where they are the same entries.
            in_order: whether the choice is sorted.
        """
        if not self.ranks.are_several:
            return self._positions(total, in_order), Parts((total,), ((0,),))
        parts = Parts.of(self.ranks.gathered((total, told)))
        positions = self._positions(parts.total, in_order)
        rank = self.ranks.rank
        if positions is None:
            return parts.of_rank(rank), parts
        start, stop = parts.ends(rank)
        own = positions[(positions >= start) & (positions < stop)] - start
        return parts.divided(own, rank), parts

    def _positions(self, total: int, in_order: bool) -> Tensor | None:
        """The chosen ones of all entries; None where these are all of them."""
        if total <= self.limit:
            return None
        found = torch.randperm(total, generator=generator(self.seed))[: int(self.limit)]
        return found.sort().values if in_order else found

    @property
    def part(self) -> float:
        """How many of the samples this rank takes of a stream."""
        if math.isinf(self.limit):
            return self.limit
        return len(torch.arange(self.limit).tensor_split(self.ranks.size)[self.ranks.rank])


@dataclass(frozen=True)
class Parts:
    """The different sets of entries that the ranks have, in the order of the ranks.

    Args:
        totals: how many entries each set has.
        sharers: the ranks that have it.
    """

    totals: tuple[int, ...]
    sharers: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, told: Sequence[Any]) -> Parts:
        """From what every rank tells about its entries: equal where they are the same."""
        members: dict[Any, list[int]] = {}
        for rank, (total, own) in enumerate(told):
            # no entries are nobody's, and an unknown kind is its own
            members.setdefault((total, own if total and own is not None else rank), []).append(rank)
        return cls(
            tuple(total for total, _ in members), tuple(tuple(own) for own in members.values())
        )

    @property
    def sets(self) -> list[int]:
        """Which set every rank has."""
        return [self._set_of(rank) for rank in range(sum(map(len, self.sharers)))]

    @property
    def total(self) -> int:
        """Entries of all sets."""
        return sum(self.totals)

    def ends(self, rank: int) -> tuple[int, int]:
        """The places of a rank's set among all entries."""
        index = self._set_of(rank)
        start = sum(self.totals[:index])
        return start, start + self.totals[index]

    def of_rank(self, rank: int) -> Tensor | None:
        """The positions of a rank's own in its set; None for all of them."""
        index = self._set_of(rank)
        if len(self.sharers[index]) == 1:
            return None
        return self.divided(torch.arange(self.totals[index]), rank)

    def divided(self, positions: Tensor, rank: int) -> Tensor:
        """A rank's part of positions in its set, in the order of the ranks that share it."""
        own = self.sharers[self._set_of(rank)]
        return positions.tensor_split(len(own))[own.index(rank)]

    def _set_of(self, rank: int) -> int:
        return next(k for k, own in enumerate(self.sharers) if rank in own)


def told_of_batches(batches: Sequence[Batch]) -> Any:
    """Numbers that are the same for the same samples."""
    leaves = [leaf for batch in batches for leaf in tensors_in(opened(batch))]
    bits = [bits for _, bits in fingerprints(leaves)]
    return tuple(bits), tuple(tuple(leaf.shape) for leaf in leaves)


def told_of_dataset(data: Any, options: dict[str, Any]) -> Any:
    """The same from a few entries; None for an empty data set."""
    if not len(data):
        return None
    few = sorted({int(k) for k in torch.linspace(0, len(data) - 1, LOOKED_AT)})
    return told_of_batches(fetched(Subset(data, few), {**options, "num_workers": 0}))
