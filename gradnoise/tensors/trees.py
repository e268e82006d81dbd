"""Nested containers of tensors: parameter dicts, batches, and their flat vectors.

A *batch* is a tensor or any nesting of tuples, lists and mappings of tensors that share their
leading dimension, one entry per sample. Leaves of other kinds, and tensors without dimensions,
pass through unchanged.
"""

from __future__ import annotations

import copy
import math
from collections import UserDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from ..errors import DataError

TINY = 1e-15  # a norm below which squares of float32 lose digits
Batch = Any
TensorDict = dict[str, Tensor]


def wide_dtype(device: torch.device) -> torch.dtype:
    """The dtype of sums: float64, or float32 on devices without float64 (MPS)."""
    return torch.float32 if device.type == "mps" else torch.float64


def compute_dtype(tensors: Iterable[Tensor]) -> torch.dtype:
    """The most precise dtype among tensors, float32 at least."""
    dtype = torch.float32
    for tensor in tensors:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return dtype


def widen(tensor: Tensor) -> Tensor:
    """The tensor in float64, or in float32 on devices without float64 (MPS)."""
    return tensor.float() if tensor.is_mps else tensor.double()


def floats(numbers: Iterable[Tensor]) -> list[float]:
    """Tensors of one number each as numbers; their device is waited for once."""
    found = list(numbers)
    return [float(value) for value in torch.stack(found).tolist()] if found else []


def sq_norms_of(tensors: Iterable[Tensor]) -> list[float]:
    """`sq_norm` of each; their device is waited for once."""
    return floats(torch.dot(tensor.reshape(-1), tensor.reshape(-1)) for tensor in tensors)


def sq_norm(tensor: Tensor) -> float:
    """Sum of squares of the entries, without a copy."""
    (found,) = sq_norms_of([tensor])
    return found


def binary_size(vector: Tensor) -> float:
    """The power of two next above the norm, 1 for zero: dividing by it rounds nothing.

    Half precision has no room for a vector of any size.

    Example:
        >>> binary_size(torch.tensor([3.0, 4.0]))
        8.0
    """
    norm = float(torch.linalg.vector_norm(vector)) if vector.dtype == torch.float32 else 0.0
    if not (TINY < norm < math.inf):  # its squares have no room, or it is zero
        norm = float(torch.linalg.vector_norm(vector, dtype=wide_dtype(vector.device)))
    return 2.0 ** math.frexp(norm)[1] if math.isfinite(norm) else 1.0


def in_units(vector: Tensor) -> tuple[Tensor, float]:
    """A vector over its `binary_size`, and that: no square of it overflows."""
    size = binary_size(vector)
    return vector / size, size


def flatten(tensors: Sequence[Tensor]) -> Tensor:
    """All entries in order as one vector, shape (P,), float64 (float32 on MPS)."""
    return torch.cat([widen(tensor.detach()).reshape(-1) for tensor in tensors])


def unflatten(vector: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """Cut a vector of shape (P,) into tensors of the shapes, dtypes and devices of `like`."""
    parts = torch.split(vector, [tensor.numel() for tensor in like])
    return [
        part.reshape(target.shape).to(device=target.device, dtype=target.dtype)
        for part, target in zip(parts, like, strict=True)
    ]


def map_samples(function: Callable[[Tensor], Any], batch: Batch) -> Batch:
    """The batch with `function` applied to every tensor that holds samples."""

    def of_samples(leaf: Any) -> Any:
        return function(leaf) if isinstance(leaf, Tensor) and leaf.ndim > 0 else leaf

    return map_leaves(of_samples, batch)


def map_leaves(
    function: Callable[[Any], Any], batch: Batch, is_leaf: Callable[[Any], bool] | None = None
) -> Batch:
    """The batch with `function` applied to all that its tuples, lists and mappings hold.

    Args:
        function: of what is no container.
        batch: any nesting.
        is_leaf: which containers are not opened.
    """
    if isinstance(batch, (Tensor, PackedSequence)) or (is_leaf is not None and is_leaf(batch)):
        return function(batch)
    if isinstance(batch, Mapping):
        return _map_mapping(function, batch, is_leaf)
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(map_leaves(function, item, is_leaf) for item in batch))
    if isinstance(batch, (tuple, list)):
        return type(batch)(map_leaves(function, item, is_leaf) for item in batch)
    return function(batch)


def _map_mapping(function: Callable[[Any], Any], batch: Mapping[Any, Any], is_leaf: Any) -> Any:
    mapped = {key: map_leaves(function, item, is_leaf) for key, item in batch.items()}
    if type(batch) is dict:
        return mapped
    if not isinstance(batch, (dict, UserDict)):  # a copy might share its entries with the batch
        return mapped
    result: Any = copy.copy(batch)  # of the same type: defaultdict, BatchEncoding and the like
    for key, item in mapped.items():
        result[key] = item
    return result


def sample_leaves(batch: Batch) -> list[Tensor]:
    """The tensors of a batch that hold samples, in a fixed order."""
    leaves: list[Tensor] = []
    _gather(batch, leaves)
    return leaves


def _gather(item: Any, leaves: list[Tensor]) -> None:
    """In the order of `map_leaves`, without a copy of what holds them."""
    if isinstance(item, Tensor):
        if item.ndim > 0:
            leaves.append(item)
    elif isinstance(item, Mapping):
        for entry in item.values():
            _gather(entry, leaves)
    elif isinstance(item, (tuple, list)) and not isinstance(item, PackedSequence):
        for entry in item:
            _gather(entry, leaves)


def rebuild(batch: Batch, leaves: Sequence[Tensor]) -> Batch:
    """The batch with its sample tensors replaced by `leaves`, in the order of `sample_leaves`."""
    remaining = iter(leaves)
    return map_samples(lambda _: next(remaining), batch)


def joined(batches: Sequence[Batch]) -> Batch:
    """The samples of all batches as one; their tensors must agree in shape and number."""
    columns = zip(*map(sample_leaves, batches), strict=True)
    return rebuild(batches[0], [torch.cat(own) for own in columns])


def rest_of(batch: Batch) -> str:
    """What a batch holds beside tensors of samples, and how it is nested."""
    return repr(map_samples(lambda _: 0, batch))


def merged(batches: Iterable[Batch]) -> list[Batch]:
    """Neighbours joined as far as they agree in all except the number of their samples.

    Example:
        >>> [*map(len, merged([torch.ones(2), torch.ones(1), torch.ones(1, 2)]))]
        [3, 1]
    """
    groups: list[list[Batch]] = []
    before: Any = None
    for batch in batches:
        kind = [(leaf.shape[1:], leaf.dtype) for leaf in sample_leaves(batch)], rest_of(batch)
        if kind != before:
            groups.append([])
        groups[-1].append(batch)
        before = kind
    return [joined(group) if len(group) > 1 else group[0] for group in groups]


def select(batch: Batch, index: slice | Tensor) -> Batch:
    """The samples at `index` of every tensor."""
    return map_samples(lambda leaf: leaf[_on(leaf, index)], batch)


def split(batch: Batch, rows: int) -> Iterator[Batch]:
    """The samples in order, at most `rows` at a time."""
    for start in range(0, sample_count(batch), rows):
        yield select(batch, slice(start, start + rows))


def _on(leaf: Tensor, index: slice | Tensor) -> slice | Tensor:
    return index.to(leaf.device) if isinstance(index, Tensor) else index


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch with its tensors on `device`; inference tensors are copied to differentiate."""
    return map_samples(
        lambda leaf: (leaf.clone() if leaf.is_inference() else leaf).to(device), batch
    )


def sample_count(batch: Batch) -> int:
    """Number of samples of a batch.

    Raises:
        DataError: the batch holds no tensor, or its tensors disagree about the count.
    """
    leaves = sample_leaves(batch)
    if not leaves:
        raise DataError(
            f"a batch must hold tensors with one entry per sample in the leading dimension; "
            f"got {type(batch).__name__} without any. Convert arrays with torch.as_tensor, and "
            f"pass tensors, tuples, lists or dicts of them."
        )
    counts = [leaf.shape[0] for leaf in leaves]
    if len(set(counts)) > 1:
        shapes = ", ".join(str(tuple(leaf.shape)) for leaf in leaves)
        raise DataError(
            f"the tensors of one batch must agree on the number of samples in their leading "
            f"dimension; got shapes {shapes}. If these are several batches, pass them as a list "
            f"of tuples; if a tensor belongs to all samples, keep it in the model or the loss_fn; "
            f"if a collate function made the batch, pass the DataLoader or the Dataset instead."
        )
    return counts[0]
