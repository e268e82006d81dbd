"""What a list holds, batches or single samples, and data in a form that can be cut."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..errors import DataError, LossError
from ..tensors.parts import taken_apart
from ..tensors.ragged import tensors_in
from ..tensors.trees import sample_count, sample_leaves
from .items import Gathering, has_rows

LEAST = 2  # entries of a list of single samples; one alone is a batch


class SampleList(Dataset[Any]):
    """A list of single samples as a data set."""

    def __init__(self, samples: list[Any]) -> None:
        self._samples = samples

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Any:
        return self._samples[index]


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
    if all(has_rows(item) or taken_apart(item) is not None for item in data):
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
