"""The samples that are measured: drawn once, kept, and the same in every pass."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Sequence, Sized
from dataclasses import dataclass, field, replace
from itertools import islice
from numbers import Integral
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import (
    DataLoader,
    IterableDataset,
    Subset,
    TensorDataset,
)

from ..errors import ArgumentError, DataError, check_whole
from ..ranks.ranks import ALONE, Ranks
from ..ranks.share import Share
from ..tensors.random import generator
from ..tensors.trees import Batch, merged, sample_count, select, split
from .drawing import SHARED, Parts, parts_of
from .items import batched, fetched, stream_of
from .kinds import batches_in, kind_of, loader_options, own_order
from .lists import readable
from .population import AUGMENTED, STREAM, is_augmented, population_of
from .state.guard import seed_everything
from .state.wrappers import bare_data, length_of

MICRO_BATCH = 256
EXAMPLE = 32  # samples of it, for the checks of a rank that has none
SMALL = 1024  # samples of one batch below which it may well be a part of more data


@dataclass(frozen=True, eq=False)
class Samples:
    """n samples in micro-batches, out of a population of N.

    Args:
        batches: micro-batches, none empty.
        population: N, the number of samples that the estimates are about; inf for a distribution.
        notes: how they were drawn, where that is not a simple random sample.
        population_note: what N was taken to be, where that may be wrong.
        data_size: the same in samples where units are groups of them; None for single samples.
        groups_available: N in groups, where random groups of a finite population are measured;
            `population` then also has the variance of the grouping in it (`effective_population`).
        loss_population: the same of the mean loss, where it differs.
        shares: w_i/w̄, shape (n,), float64, where samples weigh differently.
        share: which of the n samples are those of this rank, in `batches`; None where all are.
        example: a few samples for checks: of another rank where this one has none; the same on all
            ranks where layers are gathered one at a time.
        sets: how many different parts of the data the ranks have.

    Where units are groups (`Unit`), "sample" means one of them: n and N count groups.
    """

    batches: tuple[Batch, ...]
    population: float
    notes: tuple[str, ...] = ()
    population_note: str = ""
    data_size: float | None = None
    groups_available: float = math.inf
    loss_population: float | None = None
    shares: Tensor | None = None
    share: Share | None = None
    example: Batch = None
    sets: int = 1
    counts: tuple[int, ...] = field(init=False)  # of `batches`
    count: int = field(init=False)  # n

    def __post_init__(self) -> None:
        object.__setattr__(self, "counts", tuple(sample_count(batch) for batch in self.batches))
        count = sum(self.counts) if self.share is None else self.share.count
        object.__setattr__(self, "count", count)

    @property
    def is_partition(self) -> bool:
        """Whether they are random groups of a finite population."""
        return math.isfinite(self.groups_available)

    @property
    def sampling_factor(self) -> float:
        """1/n - 1/N; 0 when the population was measured."""
        return 1 / self.count - 1 / self.population

    @property
    def largest_count(self) -> int:
        """Samples of the largest micro-batch."""
        return max(self.counts) if self.counts else sample_count(self.example)

    @property
    def largest_batch(self) -> Batch:
        """The micro-batch with the most samples, for checks and trials."""
        return self.batches[self.counts.index(max(self.counts))] if self.counts else self.example

    def split(self, rows: Tensor, dim: int = 0) -> tuple[Tensor, ...]:
        """Rows of all n samples, cut to those of each micro-batch here."""
        own = rows if self.share is None else self.share.of(rows, dim)
        return torch.split(own, list(self.counts), dim)

    def halves(self, seed: int) -> tuple[Samples, Samples]:
        """Two random halves of the samples (one more in the second if n is odd)."""
        first, second = (self.subset(_mask(own, self.count)) for own in self.half_positions(seed))
        return first, second

    def half_positions(self, seed: int) -> tuple[Tensor, Tensor]:
        """The positions of both, sorted."""
        order, middle = torch.randperm(self.count, generator=generator(seed)), self.count // 2
        return order[:middle].sort().values, order[middle:].sort().values

    def some(self, count: int, seed: int) -> Samples:
        """So many random samples, or all where there are no more."""
        if self.count <= count:
            return self
        return self.subset(_mask(self.some_positions(count, seed), self.count))

    def some_positions(self, count: int, seed: int) -> Tensor:
        """The positions of these, sorted."""
        order = torch.randperm(self.count, generator=generator(seed))
        return order[:count].sort().values

    def together(self, positions: Tensor) -> Samples:
        """Those at sorted positions, in as few micro-batches as their tensors allow.

        Only for problems that are divisible.
        """
        batches = tuple(self.taken(positions, self.largest_count))
        return replace(self, batches=batches, share=self.at(positions))

    def with_common_example(self, ranks: Ranks) -> Samples:
        """With an `example` that is the same on all ranks, for checks that these make together."""
        largest = self.largest_batch
        own = self.largest_count, select(largest, slice(0, EXAMPLE))
        told = ranks.gathered(own, "samples for checks")
        return replace(self, example=max(told, key=operator.itemgetter(0))[1])

    def joined(self, other: Samples) -> Samples:
        """These samples, then the others, of the same population."""
        share = self.share and other.share and self.share.joined(other.share)
        return replace(self, batches=self.batches + other.batches, share=share)

    def subset(self, chosen: Tensor) -> Samples:
        """Those of the samples where a mask of shape (n,) holds; at least one."""
        pairs = zip(self.batches, self.split(chosen), strict=True)
        batches = tuple(select(b, mask) for b, mask in pairs if mask.any())
        shares = None if self.shares is None else self.shares[chosen]
        share = self.share and self.share.chosen(chosen)
        return replace(self, batches=batches, shares=shares, share=share)

    def at(self, positions: Tensor) -> Share | None:
        """Whose the samples at sorted positions are; None where all are this rank's."""
        return self.share and self.share.at(positions)

    def taken(self, positions: Tensor, micro_batch: int) -> list[Batch]:
        """Micro-batches of the samples at sorted positions, which may repeat; in their order.

        Samples of several micro-batches come together where their tensors agree in shape. Of
        several ranks each has those of its own samples, which `at` tells.
        """
        share = self.at(positions)
        if share is not None and self.share is not None:
            positions = share.of(positions) - self.share.start
        ends = torch.tensor(self.counts).cumsum(0)
        places = torch.bucketize(positions, ends, right=True)
        starts = ends - torch.tensor(self.counts)
        parts = (
            select(self.batches[k], positions[places == k] - starts[k])
            for k in sorted(set(places.tolist()))
        )
        return [piece for batch in merged(parts) for piece in _split(batch, micro_batch)]

    @classmethod
    def draw(
        cls,
        data: Any,
        *,
        max_samples: int | None = 4096,
        population: str | int = "dataset",
        seed: int = 0,
        micro_batch: int = MICRO_BATCH,
        least: int = 2,
        ranks: Ranks = ALONE,
    ) -> Samples:
        """Choose and keep the samples to measure.

        A data set, a loader in sequential or shuffled order, a list of batches and a single batch
        give a simple random sample without replacement of at most `max_samples` (all of them in
        order when they fit). Streams and loaders with a sampler of their own give their first
        `max_samples` samples.

        Args:
            data: a DataLoader, a Dataset, a list of batches or of single samples, or one batch (a
                tensor, any nesting of tuples and mappings of tensors, or what can be taken apart,
                see `readable`).
            max_samples: n at most; None takes all.
            population: "dataset" (N = all samples of `data`), "distribution" (N = ∞), or N.
            seed: of the choice, and of augmentation that draws from the global random states.
            micro_batch: samples evaluated at once; a loader's smaller batches stay as they are.
            least: samples that are needed; 2 for a variance of gradients.
            ranks: those that draw together; `data` are this one's, or the same on several of them.

        Raises:
            DataError: no samples, fewer than `least`, a one-shot generator, or other objects.
            ArgumentError: `max_samples`, `micro_batch` or `population` out of range.
        """
        _check_arguments(max_samples, population, micro_batch)
        data = bare_data(data)
        check_whole("seed", seed, 0)
        seed_everything(seed)
        limit = math.inf if max_samples is None else max_samples
        data = readable(data)
        parts = parts_of(data, ranks, seed)
        drawn = _draw(data, _Choice(limit, seed, ranks.rank, parts), micro_batch)
        pieces = tuple(piece for batch in drawn.batches for piece in _split(batch, micro_batch))
        share, example = exchanged(pieces, ranks)
        count = sum(map(sample_count, pieces)) if share is None else share.count
        available, notes = joined_notes(drawn.available, drawn.note, ranks, parts)
        if count < least:
            why = ", since one gradient has no variance" if least > 1 else ""
            raise DataError(
                f"got {count or 'no'} sample{'s' if count != 1 else ''}; at least {least} needed"
                f"{why}. Pass a non-empty data set, loader, list or batch."
            )
        total, note = population_of(population, max(available, count), count, drawn.endless)
        one = not ranks.are_several and _given_as_one_batch(data)
        if total == count < SMALL and population == "dataset" and one:
            note = (
                f"the {count} samples were given as one batch and are taken as the whole "
                f"population. If they are a part of more data, give all of it, or "
                f'population="distribution": the intervals are then about that'
            )
        sets = 1 if parts is None else parts.sets
        return cls(pieces, total, notes, note, share=share, example=example, sets=sets)


def exchanged(batches: Sequence[Batch], ranks: Ranks) -> tuple[Share | None, Batch]:
    """Which samples are this rank's, and a few of another one where it has none."""
    if not ranks.are_several:
        return None, None
    counts = ranks.gathered(sum(map(sample_count, batches)), "numbers of samples")
    share, example = Share(tuple(counts), ranks.rank), None
    if batches:
        example = select(batches[0], slice(0, EXAMPLE))
    if 0 in counts and any(counts):
        example = next(few for few in ranks.gathered(example, "samples") if few is not None)
    return share, example


def joined_notes(
    available: float, note: str, ranks: Ranks, parts: Parts | None
) -> tuple[float, tuple[str, ...]]:
    """How many samples all ranks have, and how they were drawn; each has told of its own set."""
    if parts is None:
        return available, (note,) if note else ()
    told = ranks.gathered((available, note), "how samples were drawn")
    of_sets = {parts.set_of(rank): own for rank, (own, _) in enumerate(told)}
    notes = [*(text for _, text in told), SHARED if parts.are_shared else ""]
    return sum(of_sets.values()), tuple(dict.fromkeys(filter(None, notes)))


def _mask(positions: Tensor, count: int) -> Tensor:
    chosen = torch.zeros(count, dtype=torch.bool)
    chosen[positions] = True
    return chosen


@dataclass(frozen=True)
class _Drawn:
    batches: list[Batch]
    available: float
    note: str = ""
    endless: str = STREAM


@dataclass(frozen=True)
class _Choice:
    """n at most, the seed of the choice, and what several ranks have, if there are others."""

    limit: float
    seed: int
    rank: int
    parts: Parts | None

    def chosen(self, total: int, *, in_order: bool) -> Tensor | None:
        """Which of so many entries are taken; None for all."""
        parts = self.parts or Parts((total,))
        return parts.chosen(self.limit, self.seed, self.rank, in_order=in_order)


def _check_arguments(max_samples: int | None, population: str | int, micro_batch: int) -> None:
    if max_samples is not None:
        check_whole("max_samples", max_samples, 2)
    check_whole("micro_batch", micro_batch, 1)
    words = isinstance(population, str) and population in ("dataset", "distribution")
    number = isinstance(population, Integral) and not isinstance(population, bool)
    if not words and not (number and int(population) >= 2):
        raise ArgumentError(
            f'`population` must be "dataset", "distribution" or a number of samples; '
            f"got {population!r}"
        )


def _draw(data: Any, choice: _Choice, micro_batch: int) -> _Drawn:
    kind = kind_of(data)
    if kind == "loader":
        return _from_loader(data, choice)
    if kind == "dataset":
        return _from_dataset(data, choice, {"batch_size": micro_batch})
    if kind == "batches":
        return _from_batches(batches_in(data), choice)
    stream = batched(data, micro_batch) if isinstance(data, IterableDataset) else data
    return _from_stream(stream, choice, length_of(data))


def _given_as_one_batch(data: Any) -> bool:
    return kind_of(data) == "batches" and len(batches_in(data)) == 1


def _from_loader(loader: DataLoader[Any], choice: _Choice) -> _Drawn:
    if isinstance(loader.dataset, IterableDataset) or loader.batch_size is None:
        return _from_stream(loader, choice)
    options = loader_options(loader, divided=choice.parts is not None)
    if options is None:
        drawn = _from_stream(loader, choice)
        known = float(len(loader.sampler)) if isinstance(loader.sampler, Sized) else math.inf
        return replace(drawn, available=min(drawn.available, known), note=own_order(loader))
    return _from_dataset(loader.dataset, choice, options)


def _from_dataset(data: Any, choice: _Choice, options: dict[str, Any]) -> _Drawn:
    if type(data) is TensorDataset and set(options) == {"batch_size"}:
        return _from_batches([list(data.tensors)], choice)  # rather than entry by entry
    total, parts = len(data), choice.parts
    chosen = choice.chosen(total, in_order=False)
    if chosen is not None:
        data = Subset(data, chosen.tolist())
    batches = fetched(data, options) if len(data) else []
    augmented = is_augmented(data) if parts is None else parts.is_augmented
    return _Drawn(batches, math.inf if augmented else total, endless=AUGMENTED)


def _from_batches(data: list[Batch], choice: _Choice) -> _Drawn:
    data = [batch for batch in data if sample_count(batch)]
    total = sum(sample_count(batch) for batch in data)
    chosen = choice.chosen(total, in_order=True)
    return _Drawn(data if chosen is None else _taken(data, chosen), total)


def _taken(data: list[Batch], chosen: Tensor) -> list[Batch]:
    """The samples of batches at sorted positions."""
    batches, start = [], 0
    for batch in data:
        stop = start + sample_count(batch)
        here = chosen[(chosen >= start) & (chosen < stop)] - start
        if len(here):
            batches.append(select(batch, here))
        start = stop
    return batches


def _from_stream(data: Iterable[Batch], choice: _Choice, told: float | None = None) -> _Drawn:
    """The first samples of a stream; of several ranks each takes its part from its own."""
    parts, rank = choice.parts, choice.rank
    if parts is None:
        return _first_of(data, choice.limit, told)
    drawn = _first_of(data, parts.limit_of(rank, choice.limit), told)
    positions = parts.divided(range(sum(map(sample_count, drawn.batches))), rank)
    return replace(drawn, batches=_taken(drawn.batches, torch.tensor(positions)))


def _first_of(data: Iterable[Batch], limit: float, told: float | None) -> _Drawn:
    batches: list[Batch] = []
    count, stream = 0, stream_of(data)
    for batch in stream:
        room = min(sample_count(batch), limit - count)
        batches.append(select(batch, slice(0, int(room))))
        count += int(room)
        if count >= limit:
            whole = room == sample_count(batch) and not list(islice(stream, 1))
            note = f"the first {count} samples were taken in the loader's own order"
            if whole:
                return _Drawn(batches, count)
            return _Drawn(batches, length_of(data) if told is None else told, note)
    return _Drawn([batch for batch in batches if sample_count(batch)], count)


def _split(batch: Batch, size: int) -> list[Batch]:
    return [batch] if sample_count(batch) <= size else list(split(batch, size))
