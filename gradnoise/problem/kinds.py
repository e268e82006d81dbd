"""How data are read: by a loader, as a stream, as a data set, or as batches that are there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
)
from torch.utils.data.distributed import DistributedSampler

from ..errors import DataError
from ..tensors.trees import Batch
from .lists import is_one_batch


def kind_of(data: Any) -> str:
    """How data are read: "loader", "stream", "dataset" or "batches".

    Raises:
        DataError: they can be read once alone, or not at all.
    """
    if isinstance(data, DataLoader):
        return "loader"
    if isinstance(data, Dataset):
        return "stream" if isinstance(data, IterableDataset) else "dataset"
    if isinstance(data, (Tensor, tuple, list, Mapping)):
        return "batches"
    if isinstance(data, Iterator):
        raise DataError(
            f"`data` is a one-shot {type(data).__name__}, which reading would use up and could "
            f"not put back. Pass list(itertools.islice(data, k)), a DataLoader, or a Dataset."
        )
    if isinstance(data, (str, bytes, np.ndarray)):
        raise DataError(
            f"`data` must hold tensors; got {type(data).__name__}. Convert arrays with "
            f"torch.as_tensor, in the dtype of the model."
        )
    if hasattr(data, "__getitem__") and hasattr(data, "__len__"):
        return "dataset"
    if isinstance(data, Iterable):
        return "stream"
    raise DataError(
        f"`data` must be a DataLoader, a Dataset, a list of batches, or one batch of tensors; "
        f"got {type(data).__name__}"
    )


def batches_in(data: Any) -> list[Batch]:
    """The batches of a list of them, or the one that is given."""
    return data if isinstance(data, list) and not is_one_batch(data) else [data]


def loader_options(loader: DataLoader[Any], *, divided: bool = False) -> dict[str, Any] | None:
    """How a loader makes batches; None where its data or its order are its own.

    Args:
        loader: the user's.
        divided: whether the data set is meant that a DistributedSampler divides among ranks.
    """
    stream = isinstance(loader.dataset, IterableDataset) or loader.batch_size is None
    divided = divided and isinstance(loader.sampler, DistributedSampler)
    if stream or not (divided or _plain_order(loader)):
        return None
    return {
        "batch_size": loader.batch_size,
        "num_workers": loader.num_workers,
        "collate_fn": loader.collate_fn,
        "worker_init_fn": loader.worker_init_fn,
    }


def own_order(loader: DataLoader[Any]) -> str:
    """The note for a loader whose sampler chooses."""
    return f"samples were taken as the loader's own {type(loader.sampler).__name__} gave them"


def _plain_order(loader: DataLoader[Any]) -> bool:
    """Whether every entry comes exactly once, in sequential or shuffled order."""
    sampler = loader.sampler
    shuffled = isinstance(sampler, RandomSampler) and not sampler.replacement
    whole = shuffled and len(sampler) == len(loader.dataset)  # type: ignore[arg-type]
    return type(loader.batch_sampler) is BatchSampler and (
        type(sampler) is SequentialSampler or whole
    )
