"""What training draws at random: a sample, or a group of samples whose losses are coupled.

Losses of samples that depend on each other (batch normalisation in training mode, contrastive
losses, losses divided by a count of the batch) have no gradient per sample. Groups of b samples
have: the units are then groups, and everything that is measured of samples is measured of groups.
Results are in samples: Σ is b times the covariance of the groups' gradients, so that the noise of a
batch of B samples is Σ/B, and a noise scale is b times that in groups.

A loss that draws random numbers (dropout) is a function of its unit and of the seed that is kept
with it: every pass evaluates it from the same random state.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..errors import ArgumentError, LossError, check_whole
from ..tensors.ragged import Ragged, opened
from ..tensors.random import generator
from ..tensors.trees import (
    Batch,
    map_samples,
    rebuild,
    rest_of,
    sample_count,
    sample_leaves,
)
from .losses.loss_fn import LossFn
from .shares import mean_of_batch
from .state.generators import seed_all

UNITS = ("auto", "sample", "group")
COLLATING = 2**31  # seeds of units are below
AS_ASKED = "as asked for"  # why units are groups


@dataclass(frozen=True)
class Unit:
    """One random draw of training.

    Args:
        kind: "sample" or "group".
        size: b, the number of samples in it.
        is_replayed: whether the loss draws random numbers, from a seed that belongs to the unit.
        reason: why groups, or what is random; empty for plain samples.
        mean_weight: w̄, where samples weigh differently; see `shares`.
    """

    kind: str = "sample"
    size: int = 1
    is_replayed: bool = False
    reason: str = ""
    mean_weight: float | None = None

    @property
    def is_seeded(self) -> bool:
        """Whether batches are `Seeded`."""
        return self.is_group or self.is_replayed

    @property
    def is_group(self) -> bool:
        """Whether units are groups of samples."""
        return self.kind == "group"

    def count_of(self, batch_size: int) -> int:
        """The units of a batch of so many samples.

        Raises:
            ArgumentError: a part of a group.
        """
        if batch_size % self.size:
            raise ArgumentError(
                f"`batch_size` = {batch_size} must be a multiple of {self.size}: units are groups "
                f"of {self.size} samples ({self.reason}). Give `group_size` = {batch_size}"
            )
        return batch_size // self.size


SAMPLE = Unit()


def check_unit(unit: str, group_size: int | None) -> None:
    """Raise ArgumentError for an unknown unit, or for a size that it cannot have."""
    if unit not in UNITS:
        raise ArgumentError(f"`unit` must be one of {', '.join(UNITS)}; got {unit!r}")
    if group_size is not None:
        check_whole("group_size", group_size, 1)
        if unit == "sample":
            raise ArgumentError(
                f"`group_size` = {group_size} needs unit='group' or unit='auto'; got unit='sample'"
            )


class Seeded(NamedTuple):
    """A batch whose m units have seeds.

    Args:
        batch: tensors (m, ...) of samples, or (m, b, ...) of groups.
        seeds: shape (m,), whole numbers.
    """

    batch: Batch
    seeds: Tensor

    @classmethod
    def of(cls, batch: Batch, source: torch.Generator) -> Seeded:
        """The batch with new seeds."""
        count = sample_count(batch)
        return cls(batch, torch.randint(0, 2**31, (count,), generator=source))


class UnitLosses:
    """The losses of the units of `Seeded` batches, as a loss function of its own.

    The loss of a group is the (weighted) mean of its samples' losses, or the number that `loss_fn`
    returns for it. Samples with random losses are evaluated in the micro-batches that they were put
    into, from the seed of the first: the draws of a sample are those of its place in the
    micro-batch.

    Args:
        loss_fn: the user's.
        unit: kind and size.
        own: generators of the user's own objects, seeded as the global ones.
    """

    def __init__(self, loss_fn: LossFn, unit: Unit, own: tuple[Any, ...] = ()) -> None:
        self.loss_fn, self.unit, self._own = loss_fn, unit, own

    def __call__(self, model: nn.Module, batch: Seeded) -> Tensor:
        if not self.unit.is_group:
            batch = given(batch, self._own)
            seed_all(int(batch.seeds[0]), self._own)
            return self.loss_fn(model, batch.batch)
        seeds = batch.seeds.tolist()
        return torch.stack([self._of_group(model, batch, k, seed) for k, seed in enumerate(seeds)])

    def _of_group(self, model: nn.Module, batch: Seeded, index: int, seed: int) -> Tensor:
        group = map_samples(lambda leaf: leaf[index], batch.batch)
        seed_all(seed, self._own)
        loss = mean_of_batch(self.loss_fn, model, group)
        if not isinstance(loss, Tensor):
            raise LossError(
                f"loss_fn must return a tensor: one number for its batch, or one loss per sample; "
                f"got {type(loss).__name__}"
            )
        if loss.numel() != 1 and loss.shape != (sample_count(group),):
            raise LossError(
                f"loss_fn must return one number for its batch of {sample_count(group)} samples, "
                f"or one loss per sample; got shape {tuple(loss.shape)}"
            )
        return loss.mean()


def given(batch: Batch, own: tuple[Any, ...] = ()) -> Any:
    """What a loss is given, with `Ragged` samples put together; groups are, one by one, later.

    A collate function that draws has a seed of its own: its draws are not those of the loss.
    """
    if isinstance(batch, Ragged):
        return opened(batch)
    if not isinstance(batch, Seeded) or not isinstance(batch.batch, Ragged):
        return batch
    if batch.batch.positions.ndim > 1:
        return batch
    seed_all(int(batch.seeds[0]) + COLLATING, own)
    return Seeded(opened(batch.batch), batch.seeds)


def stacked(groups: list[Batch], most: int, seed: int) -> list[Seeded]:
    """Groups as micro-batches of at most `most` groups each, with seeds.

    Groups whose tensors differ in shape, or that hold more than tensors of samples, stay alone.
    """
    source = generator(seed)
    made: list[Seeded] = []
    waiting: list[Batch] = []
    for group in groups:
        if waiting and (len(waiting) == most or not _alike(waiting[0], group)):
            made.append(_stack(waiting, source))
            waiting = []
        waiting.append(group)
    return [*made, _stack(waiting, source)] if waiting else made


def _stack(groups: list[Batch], source: torch.Generator) -> Seeded:
    leaves = [torch.stack(own) for own in zip(*map(sample_leaves, groups), strict=True)]
    return Seeded.of(rebuild(groups[0], leaves), source)


def _alike(first: Batch, second: Batch) -> bool:
    """Whether two groups can be stacked: equal but for the entries of their tensors."""
    shapes = ([(leaf.shape, leaf.dtype) for leaf in sample_leaves(g)] for g in (first, second))
    one, other = shapes
    return one == other and rest_of(first) == rest_of(second)
