"""Per-sample losses of a torch criterion."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from ...errors import LossError
from ...tensors.trees import Batch
from .loss_fn import LossFn


def supervised(criterion: Callable[..., Tensor]) -> LossFn:
    """Per-sample losses of a torch criterion on batches `(inputs, targets)`.

    ℓ_i = reduction over sample i's own remaining dimensions of criterion(model(inputs), targets),
    where `reduction="mean"` averages, `"sum"` adds, and `KLDivLoss`'s `"batchmean"` adds.
    Positions with `CrossEntropyLoss`'s or `NLLLoss`'s `ignore_index` do not count in the mean.

    Args:
        criterion: a torch loss module such as `nn.CrossEntropyLoss()`, or a function of
            `(outputs, targets, reduction=...)` such as `F.mse_loss` (averaged).

    Returns:
        `loss_fn(model, batch)` with one loss per sample, shape (n,).

    Raises:
        LossError: class weights with `reduction="mean"`, where torch divides by the weights of
            the whole batch, so that a sample's share of the loss depends on the other samples;
            `reduction="none"` with several losses per sample; a batch that is no pair.

    Example:
        >>> import torch
        >>> loss_fn = supervised(nn.MSELoss())
        >>> loss_fn(nn.Identity(), (torch.tensor([[1.0, 3.0]]), torch.zeros(1, 2)))
        tensor([5.])
    """
    reduction = getattr(criterion, "reduction", "mean")
    class_weights = getattr(criterion, "weight", None) is not None
    if class_weights and reduction == "mean" and isinstance(criterion, _CLASS_LOSSES):
        raise LossError(
            f"{type(criterion).__name__}(weight=..., reduction='mean') divides by the class "
            f"weights of the whole batch, so one sample changes the loss of another. Use "
            f"reduction='sum' to measure the mean of weight[y_i]·loss_i over the samples, or "
            f"write a loss_fn(model, batch) that returns one loss per sample."
        )
    unreduced = _unreduced(criterion)
    ignored = _ignore_index(criterion)

    def loss_fn(model: nn.Module, batch: Batch) -> Tensor:
        inputs, targets = _pair(batch)
        outputs = predictions(model(inputs))
        losses = unreduced(outputs, targets)
        _check_broadcast(outputs, targets, losses)
        counted = None if ignored is None else _counted(losses, targets, ignored)
        return _over_own_dimensions(losses, reduction, counted)

    return loss_fn


_CLASS_LOSSES = (nn.CrossEntropyLoss, nn.NLLLoss)


def _unreduced(criterion: Callable[..., Tensor]) -> Callable[..., Tensor]:
    if not isinstance(criterion, nn.Module):
        return functools.partial(criterion, reduction="none")
    if not hasattr(criterion, "reduction"):
        raise LossError(
            f"{type(criterion).__name__} has no `reduction`, so its per-sample losses cannot be "
            f"read. Write a loss_fn(model, batch) that returns one loss per sample, shape (n,)."
        )
    twin = copy.copy(criterion)
    twin.reduction = "none"  # type: ignore[assignment]
    return twin


def _ignore_index(criterion: Callable[..., Tensor]) -> int | None:
    if isinstance(criterion, nn.Module):
        return getattr(criterion, "ignore_index", None)
    given = inspect.signature(criterion).parameters.get("ignore_index")
    return None if given is None else given.default


def predictions(outputs: Any) -> Tensor:
    """What a criterion compares: a tensor, or the `logits` of a Hugging Face output."""
    outputs = getattr(outputs, "logits", outputs)
    if not isinstance(outputs, Tensor):
        raise LossError(
            f"a criterion needs a model that returns a tensor; this one returned "
            f"{type(outputs).__name__}. Write a loss_fn(model, batch) that picks what it needs and "
            f"returns one loss per sample, shape (n,)."
        )
    return outputs


def _check_broadcast(outputs: Tensor, targets: Any, losses: Tensor) -> None:
    """Outputs (n, 1) against targets (n,) broadcast to (n, n), which is a mistake."""
    if isinstance(targets, Tensor) and losses.ndim > 1 and outputs.ndim != targets.ndim:
        if losses.shape == targets.shape:  # class indices of sequences or images
            return
        raise LossError(
            f"outputs of shape {tuple(outputs.shape)} and targets of shape {tuple(targets.shape)} "
            f"broadcast to {tuple(losses.shape)}; give them the same shape, for example with "
            f"targets[:, None] or outputs.squeeze(1)"
        )


def _pair(batch: Batch) -> tuple[Any, Any]:
    if isinstance(batch, (tuple, list)) and len(batch) == 2:
        return batch[0], batch[1]
    size = f" of {len(batch)}" if isinstance(batch, (tuple, list, Mapping)) else ""
    raise LossError(
        f"a criterion needs batches (inputs, targets); got {type(batch).__name__}{size}. "
        f"Write a loss_fn(model, batch) that returns one loss per sample, shape (n,)."
    )


def _counted(losses: Tensor, targets: Tensor, ignored: int) -> Tensor | None:
    if targets.shape != losses.shape or targets.is_floating_point():
        return None  # targets are class probabilities: nothing is ignored
    return targets != ignored


def _over_own_dimensions(losses: Tensor, reduction: str, counted: Tensor | None) -> Tensor:
    if losses.ndim == 0:
        raise LossError(
            "the criterion returned a single number for the whole batch; one loss per sample is "
            "needed, shape (n,). Write a loss_fn(model, batch) without the average; or, if the "
            "data give single samples, batch them with DataLoader(data, batch_size=...)."
        )
    if losses.ndim == 1:
        return losses
    if reduction == "none":
        raise LossError(
            f"reduction='none' gave losses of shape {tuple(losses.shape)}, several per sample; "
            f"pass reduction='mean' or 'sum', which is then taken within each sample."
        )
    own = losses.flatten(1)
    if reduction != "mean":
        return own.sum(1)
    if counted is None:
        return own.mean(1)
    return own.sum(1) / counted.flatten(1).sum(1).clamp(min=1)
