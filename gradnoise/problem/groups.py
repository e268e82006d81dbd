"""Groups of samples as they come in training: random ones of b samples, or the batches as given."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sized
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.utils.data import IterableDataset, Subset, TensorDataset

from ..errors import DataError
from ..ranks.ranks import ALONE, Ranks
from ..tensors.random import generator
from ..tensors.trees import Batch, joined, sample_count, sample_leaves, select, split
from .drawing import parts_of
from .items import batched, fetched, stream_of
from .kinds import batches_in, kind_of, loader_options, own_order
from .lists import readable
from .options import Options
from .population import AUGMENTED, STREAM, is_augmented, population_of
from .samples import Samples, exchanged, joined_notes
from .state.guard import seed_everything
from .state.wrappers import bare_data
from .unit import stacked

GROUP = 32  # samples of a group where nothing tells the batch size of training
MANY = 8  # groups at least that it leaves
LEAST_GROUPS = 2
OTHER = 1_000_003  # from the seed of one rank's draws to that of the next
OF_RANKS = (
    "each group was made of the samples of one rank, as in training with DistributedDataParallel"
)


@dataclass(frozen=True)
class _Groups:
    """Groups in a random order, out of `available` samples.

    Args:
        groups: of equal numbers of samples.
        available: N.
        fixed: whether the samples of a group belong together (batches as given).
    """

    groups: list[Batch]
    available: float
    fixed: bool = False
    note: str = ""
    endless: str = STREAM


def usual_size(data: Any, ranks: Ranks = ALONE) -> int:
    """b where it is not given: that of a loader, of most batches of a list, or 32 at most."""
    given, count = _size_and_count(data)
    told = ranks.gathered((given, count), "sizes of batches")
    known: int = max(size for size, _ in told)
    return known or max(2, min(GROUP, sum(own for _, own in told) // MANY))


def _size_and_count(data: Any) -> tuple[int, int]:
    """The size of the batches, 0 where there are none; and the number of samples."""
    data = readable(bare_data(data))
    size = getattr(data, "batch_size", None)  # of one process, which is that of its statistics
    if isinstance(size, int) and size > 0:
        return size, 0
    if kind_of(data) == "batches":
        counts = [*map(sample_count, batches_in(data))]
        if len(counts) > 1:
            return Counter(counts).most_common(1)[0][0], 0
        return 0, sum(counts)
    return 0, len(data) if isinstance(data, Sized) else GROUP * MANY


def draw_groups(
    data: Any, size: int, options: Options, *, is_random: bool, ranks: Ranks = ALONE
) -> Samples:
    """Choose and keep the groups to measure, at most `max_samples` samples in all.

    A data set, a loader in sequential or shuffled order, and batches of another size than b give
    random groups of b samples without replacement; what is left over is left out. Batches of b
    samples in a list stay together. Streams, and loaders with a sampler of their own, give their
    batches as they come.

    Args:
        data: as for `Samples.draw`.
        size: b.
        options: of the measurement.
        is_random: whether the losses draw random numbers: the population is then a distribution.
        ranks: those that draw together, each out of its own data.

    Raises:
        DataError: fewer than two groups.
    """
    seed_everything(options.seed)
    limit = math.inf if options.max_samples is None else options.max_samples
    data = readable(bare_data(data))
    parts, rank = parts_of(data, ranks, options.seed), ranks.rank
    if parts is not None:  # each rank makes groups of its own samples
        limit = parts.limit_of(rank, limit)
    found = _drawn(data, size, limit, generator(options.seed))
    groups = found.groups if parts is None else parts.divided(found.groups, rank)
    most, seed = max(1, options.micro_batch // size), options.seed + OTHER * rank
    made = stacked(groups, most, seed)
    share, example = exchanged(made, ranks)
    count = len(groups) if share is None else share.count
    if count < LEAST_GROUPS:
        raise DataError(
            f"got {count} groups of {size} samples; at least {LEAST_GROUPS} are "
            f"needed, and 16 for useful intervals. Lower `group_size`, raise `max_samples`, or "
            f"give more data."
        )
    available, notes = joined_notes(found.available, found.note, ranks, parts)
    if parts is not None:
        notes = (*notes, OF_RANKS)
    fixed = any(ranks.gathered(found.fixed, "whether groups were given"))
    sets = 1 if parts is None else parts.sets
    count = size * count
    total, note = math.inf, ""
    if not is_random:
        total, note = population_of(options.population, max(available, count), count, found.endless)
    # what makes no whole group is left out
    left = total - count >= size * sets
    groups_in_all = total / size if left else count / size
    return Samples(
        tuple(made),
        groups_in_all,
        notes,
        note,
        data_size=total,
        groups_available=math.inf if fixed else groups_in_all,
        share=share,
        example=example,
        sets=sets,
    )


def _drawn(data: Any, size: int, limit: float, source: torch.Generator) -> _Groups:
    kind = kind_of(data)
    if kind == "dataset":
        return _from_dataset(data, size, limit, source, {})
    if kind == "batches":
        return _from_batches(batches_in(data), size, limit, source)
    options = loader_options(data) if kind == "loader" else None
    if options is not None:
        return _from_dataset(data.dataset, size, limit, source, options)
    stream = batched(data, size) if isinstance(data, IterableDataset) else data
    found = _from_stream(stream, size, limit)
    chosen = kind == "loader" and not isinstance(data.dataset, IterableDataset)
    return replace(found, note=own_order(data)) if chosen and data.batch_size else found


def _from_dataset(
    data: Any, size: int, limit: float, source: torch.Generator, options: dict[str, Any]
) -> _Groups:
    total = len(data)
    chosen = torch.randperm(total, generator=source)[: int(min(limit, total) // size * size)]
    if not len(chosen):
        return _Groups([], total)
    if type(data) is TensorDataset and not options:
        whole = list(data.tensors)
        return _Groups([select(whole, index) for index in torch.split(chosen, size)], total)
    groups = fetched(Subset(data, chosen.tolist()), {**options, "batch_size": size})
    return _Groups(groups, math.inf if is_augmented(data) else total, endless=AUGMENTED)


def _from_batches(data: list[Batch], size: int, limit: float, source: torch.Generator) -> _Groups:
    data = [batch for batch in data if sample_count(batch)]
    total = sum(map(sample_count, data))
    whole = [batch for batch in data if sample_count(batch) == size]
    if len(data) > 1 and len(whole) >= len(data) - 1:  # the last one may be smaller
        few = torch.randperm(len(whole), generator=source)[: int(min(limit / size, len(whole)))]
        return _Groups(
            [whole[k] for k in sorted(few.tolist())], float(size * len(whole)), fixed=True
        )
    one = _pooled(data) if data else None
    pools = data if one is None else [one]
    groups = []
    for pool in pools:
        order = torch.randperm(sample_count(pool), generator=source)
        groups += [select(pool, index) for index in torch.split(order, size) if len(index) == size]
    most = int(min(limit / size, len(groups)))
    return _Groups(groups[:most], total)


def _pooled(batches: list[Batch]) -> Batch | None:
    """All samples as one batch; None where their shapes differ."""
    leaves = [sample_leaves(batch) for batch in batches]
    if len({tuple((leaf.shape[1:], leaf.dtype) for leaf in own) for own in leaves}) > 1:
        return None
    return joined(batches)


def _from_stream(data: Iterable[Batch], size: int, limit: float) -> _Groups:
    groups: list[Batch] = []
    for batch in stream_of(data):
        groups += [part for part in split(batch, size) if sample_count(part) == size]
        if size * (len(groups) + 1) > limit:
            note = f"the first {len(groups)} groups were taken in the loader's own order"
            return _Groups(groups[: int(limit / size)], math.inf, fixed=True, note=note)
    return _Groups(groups, float(size * len(groups)), fixed=True)
