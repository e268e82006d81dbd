"""How much every entry of a target counts in the mean that a criterion takes over a batch."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from .alignment import compares_classes
from .signature import ignored_by, reduction_of


def entry_weights(criterion: Any, targets: Any) -> Tensor | None:
    """Of every class index: that of its class, or 1; 0 where it is ignored.

    `CrossEntropyLoss` and `NLLLoss` with `reduction="mean"` divide the weighted sum over a batch by
    the sum of these. None where a mean has equal weights: other criteria, class probabilities.
    """
    counts = counted_labels(criterion, targets)
    if counts is None or reduction_of(criterion) != "mean":
        return None
    of_classes = class_weights(criterion)
    if of_classes is None:
        return counts.to(torch.get_default_dtype())
    known = targets.masked_fill(~counts, 0)
    return of_classes.to(targets.device)[known] * counts


def weights_within(criterion: Any, targets: Any) -> Tensor | None:
    """The same, for the mean within a sample; None where that is the loss of its only entry."""
    single = isinstance(targets, Tensor) and targets.ndim == 1 and class_weights(criterion) is None
    return None if single else entry_weights(criterion, targets)


def counted_labels(criterion: Any, targets: Any) -> Tensor | None:
    """Which class indices are not ignored; None for other targets."""
    indices = isinstance(targets, Tensor) and not targets.is_floating_point()
    if not indices or not compares_classes(criterion):
        return None
    ignored = ignored_by(criterion)
    return torch.ones_like(targets, dtype=torch.bool) if ignored is None else targets != ignored


def class_weights(criterion: Any) -> Tensor | None:
    """The `weight` of a criterion."""
    partial = isinstance(criterion, functools.partial)
    found = criterion.keywords.get("weight") if partial else getattr(criterion, "weight", None)
    return found if isinstance(found, Tensor) else None


def by_sample(weights: Tensor) -> Tensor:
    """Their sum over each sample's own entries, shape (n,)."""
    return weights.flatten(1).sum(1) if weights.ndim > 1 else weights
