"""A criterion that cannot be told to leave out its reduction, called on each sample alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ...errors import LossError
from ...tensors.trees import select
from .loss_fn import in_transform, what
from .reduction import by_sample, check_broadcast, over_own_dimensions, single_number
from .signature import name_of


def each_alone(criterion: Callable[..., Any], outputs: Tensor, targets: Any) -> Tensor:
    """The criterion of each sample alone, held to that of the batch."""
    with torch.no_grad():
        whole = criterion(outputs.detach(), targets)
    if not isinstance(whole, Tensor):
        raise LossError(
            f"{name_of(criterion)} returned {what(whole)}, where a criterion returns a tensor. "
            f"Write a loss_fn(model, batch) that returns one loss per sample, shape (n,)."
        )
    reduced = whole.numel() == 1 and outputs.ndim > 0 and (whole.ndim == 0 or len(outputs) > 1)
    if not reduced:
        return _of_each_entry(criterion(outputs, targets), outputs, targets)
    if isinstance(targets, Tensor) and targets.shape[:1] != outputs.shape[:1]:
        raise LossError(
            f"{name_of(criterion)} reduces outputs of shape {tuple(outputs.shape)} and targets of "
            f"shape {tuple(targets.shape)} to one number, and these do not agree on the number of "
            f"samples. Let it return its losses unreduced, or write a loss_fn(model, batch) that "
            f"returns one loss per sample, shape (n,)."
        )
    rows = [slice(i, i + 1) for i in range(len(outputs))]
    alone = [criterion(outputs[row], select(targets, row)).reshape(()) for row in rows]
    losses = torch.stack(alone)
    known = losses.detach()
    if not in_transform(whole) and not _adds_up(whole, known):
        raise LossError(
            f"{name_of(criterion)} of a batch, {float(whole):.6g}, is neither the mean "
            f"({float(known.mean()):.6g}) nor the sum of the same over its samples: it is divided "
            f"by a count of the batch (such as its labels that count), or one sample changes the "
            f"loss of another (if targets of shape (n,) meet outputs of shape "
            f"(n, 1), give them one shape). To measure what it is, a number per batch, pass "
            f"loss_fn = lambda model, batch: criterion(model(batch[0]), batch[1])."
        )
    return losses


def _of_each_entry(losses: Tensor, outputs: Tensor, targets: Any) -> Tensor:
    """Averaged within each sample, from a criterion that does not reduce."""
    if losses.ndim == 0:
        raise single_number()
    if losses.shape != outputs.shape:
        check_broadcast(outputs, targets, losses)
    return over_own_dimensions(by_sample(losses, targets), "mean", None)


def _adds_up(whole: Tensor, losses: Tensor) -> bool:
    tolerance = math.sqrt(torch.finfo(losses.dtype).eps) * float(losses.abs().mean())
    gaps = float(losses.mean() - whole), float(losses.sum() - whole) / len(losses)
    return any(abs(gap) <= tolerance for gap in gaps)
