"""The single samples of a batch that is already put together, and the way back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_sequence, unpack_sequence

from .ragged import Collate
from .trees import map_leaves


def taken_apart(batch: Any) -> tuple[list[Any], Collate] | None:
    """The samples of a batch, and the function that puts some of them together; None if unknown.

    Known are nested tensors, packed sequences, batches of graphs with `to_data_list`, and lists
    with one entry per sample; tensors with one row per sample may be beside them.
    """
    count = _count(batch)
    if not count:
        return None

    def is_leaf(item: Any) -> bool:
        each = isinstance(item, (list, tuple)) and item is not batch and len(item) == count
        return _is_whole(item) or each

    leaves: list[Any] = []
    map_leaves(leaves.append, batch, is_leaf)
    parts = [_parts(leaf, count) for leaf in leaves]
    if any(len(own) != count for own in parts):
        return None

    def collate(samples: list[Any]) -> Any:
        columns = zip(leaves, zip(*samples, strict=True), strict=True)
        made = iter([_joined(leaf, list(own)) for leaf, own in columns])
        return map_leaves(lambda _: next(made), batch, is_leaf)

    return list(zip(*parts, strict=True)), collate


def _count(batch: Any) -> int | None:
    """The number of samples, where an entry is known to hold them in another way than rows."""
    whole: list[Any] = []
    map_leaves(whole.append, batch, _is_whole)
    found = [len(_parts(leaf, 0)) for leaf in whole if _is_whole(leaf)]
    values = batch.values() if isinstance(batch, Mapping) else batch
    if not found and isinstance(batch, (tuple, list, Mapping)):
        found = [len(item) for item in values if isinstance(item, (tuple, list))]
    return found[0] if found else None


def _is_whole(item: Any) -> bool:
    nested = isinstance(item, Tensor) and item.is_nested
    return nested or isinstance(item, PackedSequence) or hasattr(item, "to_data_list")


def _parts(leaf: Any, count: int) -> list[Any]:
    if isinstance(leaf, PackedSequence):
        return unpack_sequence(leaf)
    if hasattr(leaf, "to_data_list"):
        return list(leaf.to_data_list())
    if isinstance(leaf, Tensor) and leaf.ndim:
        return list(leaf.unbind())
    return list(leaf) if isinstance(leaf, (list, tuple)) else [leaf] * count


def _joined(like: Any, parts: list[Any]) -> Any:
    if isinstance(like, PackedSequence):
        return pack_sequence(parts, enforce_sorted=False)
    if hasattr(like, "to_data_list"):
        return _own_class(like).from_data_list(parts)
    if isinstance(like, Tensor) and like.is_nested:
        return torch.nested.as_nested_tensor(parts, layout=like.layout)
    if isinstance(like, Tensor) and like.ndim:
        return torch.stack(parts)
    return type(like)(parts) if isinstance(like, (list, tuple)) else like


def _own_class(batch: Any) -> Any:
    """The class that makes batches; torch_geometric derives one for every kind of graph."""
    return next(kind for kind in type(batch).__mro__ if "from_data_list" in vars(kind))
