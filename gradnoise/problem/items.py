"""The samples of loaders and data sets, kept one by one where their batches cannot be cut."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset, default_collate

from ..errors import DataError, first_line
from ..tensors.parts import taken_apart
from ..tensors.ragged import Collate, Items, Ragged, for_collate, is_plain, tensors_in
from ..tensors.trees import Batch, sample_count, sample_leaves


class _Kept(list[Any]):
    """Samples whose batch cannot be cut.

    Attributes:
        failure: why they could not be put together at all.
        rows: as of `Items`.
    """

    failure: Exception | None = None
    rows = False


class _Keeping:
    """A collate function that gives the samples themselves where their batch cannot be cut.

    Args:
        collate: the user's.
        always: give the samples in any case.
    """

    def __init__(self, collate: Collate, *, always: bool = False) -> None:
        self.collate, self.always = collate, always

    def __call__(self, samples: list[Any]) -> Any:
        kept = _Kept(samples)
        try:
            batch = self.collate(for_collate(self.collate, samples))
        except (TypeError, RuntimeError) as error:
            if self.collate is not default_collate:
                raise
            kept.failure = error
            return kept
        if is_plain(batch, len(samples)) and not self.always:
            return batch
        kept.rows = is_plain(batch, len(samples), names=True)
        return kept


class Gathering:
    """Collects the samples of batches that cannot be cut, and gives batches of positions for them.

    Args:
        collate: puts kept samples together; None where batches come put together.
    """

    def __init__(self, collate: Collate | None = None) -> None:
        self.collate = collate
        self._items: Items | None = None

    def __call__(self, batch: Any) -> Batch:
        """The batch, or that of the same samples by their positions.

        Raises:
            DataError: a batch that can neither be cut nor taken apart.
        """
        if isinstance(batch, _Kept):
            assert self.collate is not None
            return self._added(batch, self.collate, batch.rows)
        if isinstance(batch, Ragged) or has_rows(batch):
            return batch
        parts = taken_apart(batch)
        if parts is not None:
            return self._added(*parts, is_plain(batch, len(parts[0]), names=True))
        if sample_leaves(batch) or not list(tensors_in(batch)):
            sample_count(batch)  # says what is wrong with the tensors
            return batch
        raise DataError(
            f"samples cannot be taken out of a batch that is a {type(batch).__name__}. Pass the "
            f"DataLoader or the Dataset that makes the batches, or a list of single samples"
        )

    def _added(self, samples: list[Any], collate: Collate, rows: bool) -> Ragged:
        if self._items is None:
            self._items = Items([], collate, rows)
        self._items.rows &= rows
        start = len(self._items.samples)
        self._items.samples.extend(samples)
        return Ragged(torch.arange(start, start + len(samples)), self._items)


def has_rows(batch: Any) -> bool:
    """Whether a batch that is given put together can be cut."""
    leaves = sample_leaves(batch)
    return bool(leaves) and is_plain(batch, leaves[0].size(0))


def fetched(data: Any, options: dict[str, Any]) -> list[Batch]:
    """All samples of a data set in order, in batches that can be cut.

    Args:
        data: the data set.
        options: of a DataLoader. Without `collate_fn`, samples that default collation cannot stack
            come as a list, or as a batch of graphs.

    Raises:
        DataError: the default collation of the user's own loader fails.
    """
    collate = options.get("collate_fn", default_collate)

    def read(always: bool) -> list[Any]:
        keeping = _Keeping(collate, always=always)
        return list(DataLoader(data, **{**options, "collate_fn": keeping}))

    batches = read(always=False)
    kept = [isinstance(batch, _Kept) for batch in batches]
    if not any(kept):
        return batches
    failure = next((b.failure for b in batches if isinstance(b, _Kept) and b.failure), None)
    if not all(kept):  # some could be cut by chance
        batches = read(always=True)
    settled = _settled(collate, failure, given="collate_fn" in options)
    return list(map(Gathering(settled), batches))


def _settled(collate: Collate, failure: Exception | None, *, given: bool) -> Collate:
    """The collate function of samples, where default collation cannot stack them."""
    if failure is None:
        return collate
    if given:
        raise DataError(
            f"default collation cannot put the samples of the loader into one batch: "
            f"{first_line(failure)}. Give the DataLoader a collate_fn"
        ) from failure
    return _unstacked


def _unstacked(samples: list[Any]) -> Any:
    """The samples as a list; graphs of torch_geometric as its batch."""
    kinds = [base.__module__ for sample in samples for base in type(sample).__mro__]
    graphs = all(hasattr(sample, "edge_index") or hasattr(sample, "stores") for sample in samples)
    if graphs and any(kind.startswith("torch_geometric.") for kind in kinds):
        return importlib.import_module("torch_geometric.data").Batch.from_data_list(samples)
    return samples


def batched(data: IterableDataset[Any], size: int) -> Iterator[Batch]:
    """The samples of a stream without a loader."""
    return _streamed(DataLoader(data, batch_size=size), given=False)


def stream_of(data: Iterable[Any]) -> Iterator[Batch]:
    """The batches of a stream or a loader as they come, in a form that can be cut."""
    if isinstance(data, DataLoader) and data.batch_sampler is not None and _is_usual(data):
        return _streamed(data, given=True)
    return map(Gathering(), data)


def _streamed(loader: DataLoader[Any], *, given: bool) -> Iterator[Batch]:
    kept = copy.copy(loader)
    kept.collate_fn = _Keeping(loader.collate_fn)
    gathering = Gathering(loader.collate_fn)
    for batch in kept:
        if isinstance(batch, _Kept) and batch.failure is not None:
            gathering.collate = _settled(loader.collate_fn, batch.failure, given=given)
        yield gathering(batch)


def _is_usual(loader: DataLoader[Any]) -> bool:
    """Whether its batches are what its collate function gives."""
    kind = type(loader)
    names = "__iter__", "_get_iterator"
    return all(getattr(kind, name) is getattr(DataLoader, name) for name in names)
