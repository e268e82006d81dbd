"""Per-sample losses of a torch criterion."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from ...errors import ArgumentError
from ...tensors.trees import Batch
from .alignment import aligned
from .alone import each_alone
from .entry_weights import by_sample, counted_labels, entry_weights, weights_within
from .loss_fn import LossFn
from .parts import Parts
from .predictions import predictions
from .reduction import within
from .signature import has_reduction, reduction_of, refuse_other_arguments


def supervised(criterion: Callable[..., Tensor], *, weights: str | None = None) -> LossFn:
    """Per-sample losses of a torch criterion.

    ℓ_i = reduction over sample i's own remaining dimensions of criterion(outputs, targets),
    where `reduction="mean"` averages, `"sum"` adds, and `KLDivLoss`'s `"batchmean"` adds.
    Entries with `CrossEntropyLoss`'s or `NLLLoss`'s `ignore_index` do not count in the mean, and
    others count as their class weights.

    **Weights.** With `reduction="mean"` these two divide by the weights of the whole batch. The
    objective is then L = Σw_iℓ_i/Σw_i, with w_i the sum of the weights of sample i's entries: over
    all the data what the criterion is over a batch. `weights="equal"`: the plain mean of ℓ_i.

    **Batches.** `(inputs, targets)`: the model is called as `model(inputs)`, or, where inputs are a
    tuple and `forward` cannot take it as one argument, as `model(*inputs)`. Longer tuples or lists:
    the last entry is the target, all others are the model's arguments in order. Mappings: the
    target is the one entry named `labels`, `label`, `targets`, `target` or `y`; the others are the
    model's arguments by name, and a single one whose name `forward` does not know is its first.

    **Outputs.** A tensor; the `logits` or the `out` of an output object, dataclass, mapping or
    named tuple, or its only entry; the first entry of a tuple, where no other is a number or a
    tensor with one entry per sample, as a second head would be. Outputs with entries named `aux...`
    are refused: a criterion does not say what they weigh.

    **Shapes.** What torch takes is computed as torch does. Besides, class indices (n, ...) go with
    outputs (n, C, ...), (n, ..., C), or flat (n·T, C) in the order of the targets, and may have a
    dimension of 1 where outputs have classes; `BCELoss` and `BCEWithLogitsLoss` take targets that
    differ from outputs by dimensions of 1. Soft labels have the classes where torch has them,
    in dimension 1.

    **Other criteria.** A module or function without `reduction` that returns several losses is
    averaged within each sample; flat ones (n·T,) follow targets (n, T). One that returns a single
    number is called on each sample alone, as a batch of one; the mean or the sum of these has to be
    its value on the batch.

    Args:
        criterion: a torch loss module such as `nn.CrossEntropyLoss()`, or a function of
            `(outputs, targets)`, such as `F.mse_loss` (averaged unless told otherwise by
            `functools.partial`).
        weights: None: those of the criterion; "equal": every sample counts the same.

    Returns:
        `loss_fn(model, batch)` with one loss per sample, shape (n,).

    Raises:
        ArgumentError: other `weights`.
        LossError: `reduction="none"` with several losses per sample; a criterion of more than two
            things, or one that makes samples depend on each other; batches, outputs or shapes
            that cannot be read by these rules, or in two ways.

    Example:
        >>> import torch
        >>> loss_fn = supervised(nn.MSELoss())
        >>> loss_fn(nn.Identity(), (torch.tensor([[1.0, 3.0]]), torch.zeros(1, 2)))
        tensor([5.])
        >>> loss_fn(nn.Identity(), {"pixels": torch.ones(1, 2), "labels": torch.zeros(1, 2)})
        tensor([1.])
    """
    if weights not in (None, "equal"):
        raise ArgumentError(f"`weights` must be None or 'equal'; got {weights!r}")
    refuse_other_arguments(criterion)
    return Supervised(criterion, equal=weights == "equal")


class Supervised:
    """The loss function of `supervised`.

    Args:
        criterion: as given.
        equal: whether every sample has the same weight in the objective.
    """

    def __init__(self, criterion: Callable[..., Tensor], equal: bool) -> None:
        self.criterion, self._equal = criterion, equal
        self._losses = _per_sample(criterion, reduction_of(criterion))

    def __call__(self, model: nn.Module, batch: Batch) -> Tensor:
        return self._losses(*self._compared(model, batch))

    def _compared(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Any]:
        """Outputs and targets, as the criterion takes them."""
        parts = Parts.of(model, batch)
        outputs = predictions(parts.outputs(model))
        return aligned(self.criterion, outputs, parts.target)

    def weights(self, model: nn.Module, batch: Batch) -> Tensor | None:
        """What the samples weigh in the mean over a batch, shape (n,); None: all the same."""
        if self._equal or not has_reduction(self.criterion):
            return None
        found = entry_weights(self.criterion, Parts.of(model, batch).target)
        return None if found is None else by_sample(found)

    def labels(self, model: nn.Module, batch: Batch) -> Tensor | None:
        """The class labels of every sample that count, shape (n,); None for other targets."""
        found = counted_labels(self.criterion, Parts.of(model, batch).target)
        return None if found is None else by_sample(found)

    def weighted(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor] | None:
        """w_iℓ_i and w_i, each (n,); None where all weigh the same.

        With label smoothing w_iℓ_i is not 0 where the class of a label has the weight 0.
        """
        weights = self.weights(model, batch)
        if weights is None:
            return None
        sums = _per_sample(self.criterion, "sum")
        return sums(*self._compared(model, batch)), weights


def _per_sample(criterion: Callable[..., Any], reduction: str) -> Callable[[Tensor, Any], Tensor]:
    """The losses of the samples, shape (n,), as a function of outputs and targets."""
    if not has_reduction(criterion):
        return functools.partial(each_alone, criterion)
    if isinstance(criterion, nn.Module):
        unreduced: Any = copy.copy(criterion)
        unreduced.reduction = "none"
    else:
        unreduced = functools.partial(criterion, reduction="none")
    weigh = functools.partial(weights_within, criterion)
    return functools.partial(within, unreduced, reduction, weigh)
