"""The loss that a model returns itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from ...errors import LossError
from ...tensors.trees import Batch
from .call import call, takes, takes_one_thing
from .loss_fn import LossFn, listed, what


def model_loss() -> LossFn:
    """The loss that the model returns itself: one number per batch.

    L(batch) = the `loss` of what the model returns: of an output object or mapping its `loss`; of a
    tuple or list its only entry without dimensions, as in (logits, loss); a tensor without
    dimensions is the loss.

    A mapping is given to the model by name, `model(**batch)`, a tuple or list in order,
    `model(*batch)`, anything else as it is. A `forward` with a single argument is given the whole
    batch where it does not take its entries.

    Such a loss need not be a mean over samples (tokens of a whole batch, auxiliary losses of
    experts), and its samples need not be independent. It is measured with groups of samples, one
    number each.

    Returns:
        `loss_fn(model, batch)` with one number for the batch, shape ().

    Raises:
        LossError: the model does not take the batch; it returns no loss, or several numbers.

    Example:
        >>> import torch
        >>> class Mean(torch.nn.Module):
        ...     def forward(self, x, targets=None):
        ...         return x, None if targets is None else (x - targets).square().mean()
        >>> model_loss()(Mean(), (torch.tensor([1.0, 3.0]), torch.zeros(2)))
        tensor(5.)
        >>> model_loss()(Mean(), {"x": torch.ones(2), "targets": torch.zeros(2)})
        tensor(1.)
    """
    return _loss


def _loss(model: nn.Module, batch: Batch) -> Tensor:
    return loss_of(_output(model, batch), type(model).__name__)


def _output(model: nn.Module, batch: Batch) -> Any:
    if isinstance(batch, Mapping) and (takes(model, **batch) or not takes_one_thing(model)):
        return call(model, (), batch, f"got a mapping whose entries {listed(batch)}")
    several = isinstance(batch, (tuple, list))
    if several and (takes(model, *batch) or not takes_one_thing(model)):
        return call(model, tuple(batch), {}, f"got {what(batch)} of {len(batch)}, whose entries")
    return call(model, (batch,), {}, f"got {what(batch)}, which")


def loss_of(output: Any, name: str) -> Tensor:
    """The loss in what a model or a training step returned, as a tensor without dimensions.

    Args:
        output: what was returned.
        name: of what returned it, for messages.

    Raises:
        LossError: there is no loss, or several numbers.
    """
    if isinstance(output, Mapping):
        loss = output.get("loss")
        held = f"{what(output)} with {listed(output)}"
    elif isinstance(output, (tuple, list)) and not hasattr(output, "loss"):
        numbers = [item for item in output if isinstance(item, Tensor) and item.ndim == 0]
        loss = numbers[0] if len(numbers) == 1 else None
        held = f"{what(output)} ({', '.join(map(what, output))})"
    else:
        loss = output if isinstance(output, Tensor) else getattr(output, "loss", None)
        held = what(output)
    most = 0 if loss is output else 1  # [1] from DataParallel; of an output, perhaps a prediction
    if isinstance(loss, Tensor) and loss.numel() == 1 and loss.ndim <= most:
        return loss.reshape(())
    found = "no loss" if loss is None else f"{what(loss)} as its loss"
    raise LossError(
        f"{name} returned {held}: {found}, where one number is needed, shape (). Give it the "
        f"labels or targets of which it makes a loss; or pass a loss_fn(model, batch) that picks "
        f"the loss out of what it returns."
    )
