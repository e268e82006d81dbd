"""The samples of a data set or a loader, kept one by one where their batches cannot be cut."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, default_collate

from ..errors import DataError, LossError, first_line
from ..tensors.parts import taken_apart
from ..tensors.ragged import Collate, Items, Ragged, for_collate, is_plain, tensors_in
from ..tensors.trees import Batch, sample_count, sample_leaves

LEAST = 2  # entries of a list of single samples; one alone is a batch


class SampleList(Dataset[Any]):
    """A list of single samples as a data set."""

    def __init__(self, samples: list[Any]) -> None:
        self._samples = samples

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Any:
        return self._samples[index]


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
        if isinstance(batch, Ragged) or _has_rows(batch):
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


def _has_rows(batch: Any) -> bool:
    leaves = sample_leaves(batch)
    return bool(leaves) and is_plain(batch, leaves[0].size(0))


def readable(data: Any) -> Any:
    """Data whose batches can be cut: as given, or with batches of positions.

    A list of single samples becomes a data set. Batches of graphs, nested tensors, packed
    sequences and lists of samples are taken apart.

    Raises:
        DataError: see `Gathering` and `is_one_batch`.
    """
    if isinstance(data, (DataLoader, Dataset, str, bytes)):
        return data
    if isinstance(data, list) and not is_one_batch(data):
        if holds_samples(data):
            return SampleList(data)
        return list(map(Gathering(), data))
    if isinstance(data, (Tensor, tuple, list, Mapping)) or hasattr(data, "to_data_list"):
        return Gathering()(data)
    return data


def is_one_batch(data: list[Any]) -> bool:
    """Whether a list is one batch [inputs, targets], as default collation makes them."""
    tensors = [item for item in data if isinstance(item, Tensor) and not item.is_nested]
    if not tensors:
        return False
    if len(tensors) < len(data):
        return True  # tensors beside other things
    kinds = {(item.dtype, tuple(item.shape[1:])) for item in tensors}
    same_count = len({len(item) if item.ndim else 1 for item in tensors}) == 1
    if len(tensors) > 1 and len(kinds) == 1 and same_count:
        raise DataError(
            f"a list of {len(data)} tensors of the same shape can be one batch or several. Pass a "
            f"tuple for one batch, or a list of one-element tuples for several."
        )
    return len(kinds) > 1


def holds_samples(data: list[Any]) -> bool:
    """Whether a list holds single samples: entries that are no batches."""
    if len(data) < LEAST or any(isinstance(item, (Tensor, list)) for item in data):
        return False
    if any(map(_is_numbered, data)):
        return True
    if all(_has_rows(item) or taken_apart(item) is not None for item in data):
        return _have_labels(data)
    return all(list(tensors_in(item)) for item in data)


def _have_labels(data: list[Any]) -> bool:
    """Whether mappings have a text each, or a number each beside tensors of several lengths."""
    if not all(isinstance(item, Mapping) for item in data):
        return False
    several = len({len(leaf) for item in data[:-1] for leaf in sample_leaves(item)[:1]}) > 1
    for key in data[0]:
        values = [item.get(key) for item in data]
        texts = all(isinstance(value, str) for value in values)
        numbers = several and all(isinstance(v, (int, float)) or _is_scalar(v) for v in values)
        if (texts or numbers) and len(set(map(str, values))) > 1:
            return True
    return False


@contextmanager
def taken_as_batches(data: Any) -> Iterator[None]:
    """Errors of a loss say so where the entries of a list may be single samples."""
    try:
        yield
    except Exception as error:  # the user's code
        if not _may_be_samples(data):
            raise
        said = (
            f"The {len(data)} entries of the list `data` were each taken as a batch. If they are "
            f"single samples, pass DataLoader(data, batch_size=...), with the collate_fn of "
            f"training"
        )
        if type(error) is LossError:
            raise LossError(f"{error} {said}") from error
        if hasattr(error, "add_note"):  # from Python 3.11 on
            error.add_note(said)
        raise


def _may_be_samples(data: Any) -> bool:
    """Whether a list that was taken for batches holds mappings, or entries of several lengths."""
    if not isinstance(data, list) or len(data) < LEAST or is_one_batch(data):
        return False
    lengths = {sample_count(entry) for entry in data[:-1]}
    return all(isinstance(entry, Mapping) for entry in data) or len(lengths) > 1


def _is_numbered(item: Any) -> bool:
    """Whether a number stands beside a tensor: a label."""
    if not isinstance(item, tuple):
        return False
    numbers = [x for x in item if isinstance(x, (int, float)) or _is_scalar(x)]
    return bool(numbers) and len(numbers) < len(item)


def _is_scalar(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and leaf.ndim == 0


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
