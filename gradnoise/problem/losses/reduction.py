"""Losses reduced within each sample."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ...errors import LossError


def within(
    unreduced: Callable[..., Any],
    reduction: str,
    weigh: Callable[[Any], Tensor | None],
    outputs: Tensor,
    targets: Any,
) -> Tensor:
    """The losses of a criterion that does not reduce, reduced within each sample."""
    losses = unreduced(outputs, targets)
    if not isinstance(losses, Tensor) or losses.ndim == 0:
        raise single_number()
    check_broadcast(outputs, targets, losses)
    losses = by_sample(losses, targets)
    weights = weigh(targets)
    known = weights if weights is not None and weights.shape == losses.shape else None
    return over_own_dimensions(losses, reduction, known)


def check_broadcast(outputs: Tensor, targets: Any, losses: Tensor) -> None:
    """Outputs (n, 1) against targets (n,) broadcast to (n, n), which is a mistake."""
    if isinstance(targets, Tensor) and losses.ndim > 1 and outputs.ndim != targets.ndim:
        if losses.shape == targets.shape:  # class indices of sequences or images
            return
        raise LossError(
            f"outputs of shape {tuple(outputs.shape)} and targets of shape {tuple(targets.shape)} "
            f"broadcast to {tuple(losses.shape)}; give them the same shape, for example with "
            f"targets[:, None] or outputs.squeeze(1)"
        )


def by_sample(losses: Tensor, targets: Any) -> Tensor:
    """Losses that lie flat, (n·T,), by sample, (n, T), where the targets tell n and T."""
    flat = isinstance(targets, Tensor) and losses.ndim == 1 and targets.ndim > 1
    if flat and losses.numel() == targets.numel():
        return losses.reshape(targets.shape)
    return losses


def over_own_dimensions(losses: Tensor, reduction: str, weights: Tensor | None) -> Tensor:
    """The mean or the sum over the dimensions after the first, shape (n,).

    Losses with weights are already multiplied by them: their mean is the sum over that of the
    weights, and 0 where nothing counts.
    """
    if losses.ndim == 1 and weights is None:
        return losses
    if reduction == "none":
        raise LossError(
            f"reduction='none' gave losses of shape {tuple(losses.shape)}, several per sample; "
            f"pass reduction='mean' or 'sum', which is then taken within each sample."
        )
    own = losses.reshape(len(losses), -1)
    if reduction != "mean":
        return own.sum(1)
    if weights is None:
        return own.mean(1)
    total = weights.reshape(len(weights), -1).sum(1).to(losses)
    return own.sum(1) / torch.where(total > 0, total, 1.0)


def single_number() -> LossError:
    """The error for a criterion that has reduced all the same."""
    return LossError(
        "the criterion returned a single number for the whole batch; one loss per sample is "
        "needed, shape (n,). Write a loss_fn(model, batch) without the average; or, if the "
        "data give single samples, batch them with DataLoader(data, batch_size=...)."
    )
