"""Outputs and targets brought into the shapes that a criterion takes."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from ...errors import LossError

CLASS_LOSSES = (nn.CrossEntropyLoss, nn.NLLLoss)
_CLASS_FUNCTIONS = (F.cross_entropy, F.nll_loss)
_STRICT_LOSSES = (nn.BCELoss, nn.BCEWithLogitsLoss)  # they refuse shapes that differ
_STRICT_FUNCTIONS = (F.binary_cross_entropy, F.binary_cross_entropy_with_logits)


def compares_classes(criterion: Any) -> bool:
    """Whether it is a criterion that takes the indices of classes."""
    return isinstance(criterion, CLASS_LOSSES) or _function(criterion) in _CLASS_FUNCTIONS


def aligned(criterion: Callable[..., Any], outputs: Tensor, targets: Any) -> tuple[Tensor, Any]:
    """Outputs and targets as the criterion takes them, by the rules of `gn.supervised`.

    Only what torch refuses is reshaped: what torch takes, it computes as it does in training.

    Raises:
        LossError: no reading of the shapes fits, or two do.
    """
    if not isinstance(targets, Tensor):
        return outputs, targets
    if compares_classes(criterion) and not targets.is_floating_point():
        return _with_classes(outputs, targets)
    strict = isinstance(criterion, _STRICT_LOSSES) or _function(criterion) in _STRICT_FUNCTIONS
    if strict and outputs.shape != targets.shape and _same_but_for_ones(outputs, targets):
        return outputs, targets.reshape(outputs.shape)
    return outputs, targets


def _with_classes(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Outputs (n, C, ...) and targets (n, ...)."""
    own, of = outputs.shape, targets.shape  # once: each look costs where operations are followed
    if len(own) < 2:  # a single sample, which is refused by what comes of it
        return outputs, targets
    if len(own) == len(of) and of[1] == 1:  # a channel of its own
        targets, of = targets.squeeze(1), of[:1] + of[2:]
    elif len(own) == 2 and len(of) > 1 and own[0] == of.numel():
        return outputs.reshape(*of, -1).movedim(-1, 1), targets
    second = own[:1] + own[2:] == of  # classes in dimension 1
    last = own[:-1] == of  # classes in the last one
    if not second and not last:
        raise _no_reading(
            outputs,
            targets,
            "do not fit; targets of shape (n, ...) need outputs of shape (n, C, ...) or "
            "(n, ..., C)",
        )
    if second and last and len(own) > 2 and own[1:].numel() > 1:
        raise _no_reading(
            outputs, targets, "fit in two ways, with the classes in dimension 1 or in the last"
        )
    return (outputs if second else outputs.movedim(-1, 1)), targets


def _no_reading(outputs: Tensor, targets: Tensor, fit: str) -> LossError:
    return LossError(
        f"outputs of shape {tuple(outputs.shape)} and targets of shape {tuple(targets.shape)} "
        f"{fit}. Write a loss_fn(model, batch) that returns one loss per sample, shape (n,); if "
        f"the model returns its loss itself, use gn.model_loss()."
    )


def _same_but_for_ones(outputs: Tensor, targets: Tensor) -> bool:
    own = [[size for size in shape[1:] if size != 1] for shape in (outputs.shape, targets.shape)]
    return outputs.shape[:1] == targets.shape[:1] and own[0] == own[1]


def _function(criterion: Any) -> Any:
    return criterion.func if isinstance(criterion, functools.partial) else criterion
