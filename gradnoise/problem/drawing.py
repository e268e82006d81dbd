"""How the samples of several ranks are drawn as one: each brings a part of the data, or all.

Data that several ranks have in common (those of tensor parallelism, or one data set that a
DistributedSampler would divide) are counted once, and divided among these ranks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset
from torch.utils.data.distributed import DistributedSampler

from ..ranks.ranks import Ranks
from ..tensors.fingerprint import fingerprints
from ..tensors.ragged import opened, tensors_in
from ..tensors.random import generator
from ..tensors.trees import Batch, sample_count
from .items import batched, fetched, stream_of
from .kinds import batches_in, kind_of, loader_options
from .population import is_augmented
from .state.guard import seed_everything

LOOKED_AT = 32  # entries by which a data set is told from another one
DIVIDED = "divided by a DistributedSampler"  # what is told of such a data set
SHARED = "several ranks have the same data: they were counted once, and divided among these ranks"


@dataclass(frozen=True)
class Parts:
    """The different sets of entries that ranks have, in their order.

    Args:
        totals: how many entries each set has; inf where that is not known.
        sharers: the ranks that have it.
        is_augmented: whether entries of any of them are drawn at random.
        are_shared: whether several ranks have the same entries, and no sampler that divides them.
    """

    totals: tuple[float, ...]
    sharers: tuple[tuple[int, ...], ...] = ((0,),)
    is_augmented: bool = False
    are_shared: bool = False

    @classmethod
    def of(cls, told: Sequence[tuple[float, Any, bool]]) -> Parts:
        """From what every rank tells of its entries: number, contents, whether they are random."""
        members: dict[Any, list[int]] = {}
        for rank, (total, contents, _) in enumerate(told):
            # no entries are nobody's
            members.setdefault((total, contents if total else rank), []).append(rank)
        return cls(
            tuple(total for total, _ in members),
            tuple(map(tuple, members.values())),
            any(is_random for _, _, is_random in told),
            any(len(own) > 1 and key[1] != DIVIDED for key, own in members.items()),
        )

    @property
    def sets(self) -> int:
        """How many there are with entries."""
        return sum(total > 0 for total in self.totals) or 1

    def set_of(self, rank: int) -> int:
        """Which set a rank has."""
        return next(k for k, own in enumerate(self.sharers) if rank in own)

    def limit_of(self, rank: int, limit: float) -> float:
        """How many entries of a rank's set make up a limit for all, in proportion to its size."""
        own, total = self.totals[self.set_of(rank)], sum(self.totals)
        if math.isinf(limit) or total <= limit:
            return limit
        if math.isinf(total):
            return math.ceil(limit / self.sets)
        return limit * own / total

    def divided(self, entries: Sequence[Any], rank: int) -> list[Any]:
        """A rank's part of the entries that are taken of its set."""
        own = self.sharers[self.set_of(rank)]
        positions = torch.arange(len(entries)).tensor_split(len(own))[own.index(rank)]
        return [entries[k] for k in positions.tolist()]

    def chosen(self, limit: float, seed: int, rank: int, *, in_order: bool) -> Tensor | None:
        """Which entries of its set a rank takes of a simple random sample; None for all.

        Args:
            limit: entries in all, at most.
            seed: of the choice, the same on all ranks.
            rank: this one.
            in_order: whether the choice is sorted.
        """
        index, total = self.set_of(rank), sum(self.totals)
        own = self.sharers[index]
        if total <= limit:
            if len(own) == 1:
                return None
            found = torch.arange(int(self.totals[index]))
        elif math.isinf(total):  # some ranks have streams
            found = _some(int(self.totals[index]), self.limit_of(rank, limit), seed, in_order)
        else:
            start = int(sum(self.totals[:index]))
            found = _some(int(total), limit, seed, in_order) - start
            found = found[(found >= 0) & (found < int(self.totals[index]))]
        return found.tensor_split(len(own))[own.index(rank)]


def _some(total: int, limit: float, seed: int, in_order: bool) -> Tensor:
    found = torch.randperm(total, generator=generator(seed))[: int(min(limit, total))]
    return found.sort().values if in_order else found


def parts_of(data: Any, ranks: Ranks, seed: int) -> Parts | None:
    """What the ranks have, each its own data; None for this process alone."""
    if not ranks.are_several:
        return None
    told = _told_of(data, ranks.size)
    seed_everything(seed)  # of which entries of data sets have drawn
    return Parts.of(ranks.gathered(told, "data"))


def _told_of(data: Any, size: int) -> tuple[float, Any, bool]:
    """How many entries there are, what tells them from others, and whether they are random."""
    kind = kind_of(data)
    if kind == "batches":
        batches = [batch for batch in batches_in(data) if sample_count(batch)]
        return sum(map(sample_count, batches)), told_of(batches), False
    options: dict[str, Any] | None = {} if kind == "dataset" else None
    if kind == "loader":
        options = loader_options(data, divided=True)
    if options is None:
        stream = batched(data, 1) if isinstance(data, IterableDataset) else data
        first = next(iter(stream_of(stream)), None)
        return (0, None, False) if first is None else (math.inf, told_of([first]), False)
    dataset: Dataset[Any] = data.dataset if kind == "loader" else data
    return _told_of_dataset(dataset, options, _is_divided(data, size))


def _told_of_dataset(
    data: Any, options: dict[str, Any], is_divided: bool
) -> tuple[float, Any, bool]:
    total = len(data)
    if not total:
        return 0, None, False
    if is_divided:
        return total, DIVIDED, is_augmented(data)
    few = sorted({int(k) for k in torch.linspace(0, total - 1, LOOKED_AT)})
    contents = told_of(fetched(Subset(data, few), {**options, "num_workers": 0}))
    return total, contents, is_augmented(data)


def _is_divided(data: Any, size: int) -> bool:
    """Whether a loader divides its data set among so many ranks."""
    sampler = data.sampler if isinstance(data, DataLoader) else None
    return isinstance(sampler, DistributedSampler) and sampler.num_replicas == size


def told_of(batches: Sequence[Batch]) -> Any:
    """Numbers that are the same for the same samples."""
    leaves = [leaf for batch in batches for leaf in tensors_in(opened(batch))]
    bits = [bits for _, bits in fingerprints(leaves)]
    return tuple(bits), tuple(tuple(leaf.shape) for leaf in leaves)
