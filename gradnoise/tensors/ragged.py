"""Batches of samples that no tensor holds together: graphs, detection targets, sequences.

Such a batch is made by a collate function from a list of samples, and cannot be cut. What is cut
here are the positions of its samples in the list; the samples are put together anew, by the same
function, each time that the loss needs them.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence
from torch.utils.data import default_collate

from ..errors import DataError, EngineError, GradNoiseError, first_line
from .trees import Batch, map_leaves

Collate = Callable[[list[Any]], Any]
DEPTH = 6  # of objects within objects, where tensors are looked for
_NAMES = (bool, int, float, complex, str, bytes)
_SAME = (torch.dtype, torch.device, type(None))


class Items:
    """A list of samples, and how training puts some of them into one batch.

    Args:
        samples: any objects; they are not changed.
        collate: gives the batch of a list of them.
        rows: whether all tensors of its batches have one row per sample, as beside a list of names.
    """

    def __init__(self, samples: list[Any], collate: Collate, rows: bool = False) -> None:
        self.samples, self.collate, self.rows = samples, collate, rows

    def collated(self, positions: Tensor) -> Any:
        """The batch of the samples at `positions`, on its device.

        Raises:
            DataError: the collate function fails.
            EngineError: in a transform of `torch.func`.
        """
        if torch.func.debug_unwrap(positions) is not positions:
            raise EngineError(
                "the samples of a batch are put together by Python code, which torch.func cannot "
                "follow"
            )
        chosen = [self.samples[k] for k in positions.tolist()]
        try:
            batch = self.collate(for_collate(self.collate, chosen))
        except GradNoiseError:
            raise
        except Exception as error:  # the user's code
            raise DataError(
                f"the collate function failed for {len(chosen)} of the samples with "
                f"{type(error).__name__}: {first_line(error)}. It is called with lists of one "
                f"sample and more."
            ) from error
        return moved(batch, positions.device)


class Ragged(NamedTuple):
    """A batch of samples, by their positions in a list.

    Args:
        positions: shape (n,), whole numbers; (m, b) for m groups.
        items: the samples.
    """

    positions: Tensor
    items: Items


def is_ragged(batch: Batch) -> bool:
    """Whether samples of a batch, or of one with seeds, may differ in size."""
    if isinstance(batch, Ragged):
        return not batch.items.rows
    return isinstance(batch, tuple) and any(map(is_ragged, batch))


def opened(batch: Batch) -> Any:
    """What the loss is given: the samples put together; a batch of tensors as it is."""
    return batch.items.collated(batch.positions) if isinstance(batch, Ragged) else batch


def is_plain(batch: Batch, count: int, *, names: bool = False) -> bool:
    """Whether a batch of so many samples can be cut: tensors with one row per sample.

    Args:
        batch: what is no tensor in it must be the same for all samples.
        count: n.
        names: allow lists with one string or number for every sample as well.
    """
    found: list[Tensor] = []
    return _is_plain(batch, count, names, found) and bool(found)


def _is_plain(item: Any, count: int, names: bool, found: list[Tensor]) -> bool:
    if isinstance(item, Tensor):
        found += [item] if item.is_nested or item.ndim else []
        return not item.is_nested and (not item.ndim or item.shape[0] == count)
    if isinstance(item, PackedSequence):
        return False
    if isinstance(item, Mapping):
        return all(_is_plain(value, count, names, found) for value in item.values())
    if isinstance(item, (tuple, list)):
        each = len(item) == count > 0 and all(isinstance(entry, _NAMES) for entry in item)
        return names if each else all(_is_plain(entry, count, names, found) for entry in item)
    return isinstance(item, (*_NAMES, *_SAME)) or callable(item)


def for_collate(collate: Collate, samples: list[Any]) -> list[Any]:
    """Samples whose containers a collate function may change; tensors are shared."""
    if collate is default_collate:
        return samples
    return [map_leaves(_copied, sample, _is_object) for sample in samples]


def _copied(leaf: Any) -> Any:
    return copy.copy(leaf) if _is_object(leaf) else leaf


def moved(batch: Any, device: torch.device) -> Any:
    """A batch with tensors, and objects that have `.to`, on a device."""

    def to(leaf: Any) -> Any:
        if isinstance(leaf, Tensor) and leaf.is_inference():
            leaf = leaf.clone()  # to differentiate
        return leaf.to(device) if isinstance(leaf, Tensor) or hasattr(leaf, "to") else leaf

    return map_leaves(to, batch, _is_object)


def _is_object(item: Any) -> bool:
    """Whether a batch may hold it whole: a graph, a packed sequence, an encoding."""
    if isinstance(item, (Tensor, type)):
        return False
    return hasattr(item, "to") or dataclasses.is_dataclass(item)


def tensors_in(item: Any, depth: int = DEPTH) -> Iterator[Tensor]:
    """All tensors of a batch, also those that its objects hold."""
    if isinstance(item, Tensor):
        yield item
    elif depth and isinstance(item, Mapping):
        for value in item.values():
            yield from tensors_in(value, depth - 1)
    elif depth and isinstance(item, (tuple, list)):
        for value in item:
            yield from tensors_in(value, depth - 1)
    elif depth and not isinstance(item, (type, torch.nn.Module)):
        for value in list(getattr(item, "__dict__", {}).values()):
            yield from tensors_in(value, depth - 1)
