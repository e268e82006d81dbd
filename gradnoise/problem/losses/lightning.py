"""The loss of a LightningModule, by its own `training_step`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from torch import Tensor, nn

from ...errors import LossError, explained
from ...tensors.trees import Batch
from ..state.wrappers import bare_model
from .loss_fn import LossFn
from .model_loss import loss_of

_SILENT = ("log", "log_dict", "print")  # what reports to a trainer


def lightning(module: nn.Module) -> LossFn:
    """The loss that a LightningModule is trained on: what its `training_step` returns.

    L(batch) = training_step(batch, 0), or its `"loss"` where it returns a mapping: one number per
    batch, measured with groups of samples, as with `gn.model_loss`.

    The module itself is what is measured: `gn.profile(module, gn.lightning(module), data)`.
    Meanwhile its `log`, `log_dict` and `print` do nothing, so that no trainer is needed and nothing
    is reported; what a step writes to `self.logger` directly is not held back. Metrics that a step
    updates are as found afterwards.

    Args:
        module: a LightningModule, of `lightning` or `pytorch_lightning`.

    Returns:
        `loss_fn(model, batch)` with one number for the batch, shape ().

    Raises:
        LossError: it has no `training_step`, or optimizes by itself
            (`automatic_optimization=False`); another model is measured; a step returns no loss, or
            asks for a trainer that is not there.

    Example:
        >>> import torch
        >>> class Lit(torch.nn.Module):  # as a LightningModule
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.net = torch.nn.Linear(2, 1)
        ...     def training_step(self, batch, batch_idx):
        ...         x, y = batch
        ...         return 0 * self.net(x).sum() + y.mean()
        >>> module = Lit()
        >>> round(lightning(module)(module, (torch.ones(3, 2), torch.ones(3))).item(), 6)
        1.0
    """
    _step_of(module)
    if not getattr(module, "automatic_optimization", True):
        raise LossError(
            f"{type(module).__name__} optimizes by itself (automatic_optimization=False), so that "
            f"its training_step changes the model. Write a loss_fn(model, batch) with what one of "
            f"its steps minimises."
        )

    def loss_fn(model: nn.Module, batch: Batch) -> Tensor:
        own = bare_model(model)
        if type(own) is not type(module):
            raise LossError(
                f"gn.lightning was made for {type(module).__name__}, and the model that is "
                f"measured is {type(own).__name__}: measure the LightningModule itself, "
                f"gn.profile(module, gn.lightning(module), data)"
            )
        with _reporting_nowhere(own), explained(RuntimeError, "not attached", _no_trainer):
            output = _call_step(_step_of(own), batch)
        return loss_of(output, f"training_step of {type(own).__name__}")

    return loss_fn


def _step_of(module: Any) -> Callable[..., Any]:
    step = getattr(module, "training_step", None)
    if callable(step):
        return step  # type: ignore[no-any-return]
    raise LossError(
        f"gn.lightning needs a LightningModule with a training_step; got {type(module).__name__}. "
        f"For a model that returns its loss itself use gn.model_loss()."
    )


def _call_step(step: Callable[..., Any], batch: Batch) -> Any:
    """With an index of the batch, where the step takes one: as Lightning decides."""
    signature = inspect.signature(step)
    for arguments in ((batch, 0), (batch,)):
        with suppress(TypeError):
            signature.bind(*arguments)
            break
    else:
        raise LossError(
            f"training_step{signature} is called with a batch and its index, which it does not "
            f"take. Write a loss_fn(model, batch) that calls it and returns its loss."
        )
    return step(*arguments)


@contextmanager
def _reporting_nowhere(module: nn.Module) -> Iterator[None]:
    """Its reports do nothing, and metrics inside count on copies of their own tensors."""
    silent = {name: vars(module).get(name) for name in _SILENT if hasattr(module, name)}
    tensors = [
        (part, {name: item for name, item in vars(part).items() if isinstance(item, Tensor)})
        for part in module.modules()
    ]
    vars(module).update(dict.fromkeys(silent, _nothing))
    for part, own in tensors:
        vars(part).update({name: item.clone() for name, item in own.items()})
    try:
        yield
    finally:
        for part, own in tensors:
            vars(part).update(own)
        for name, found in silent.items():
            del vars(module)[name]
            if found is not None:
                vars(module)[name] = found


def _nothing(*_args: Any, **_kwargs: Any) -> None:
    """Instead of what reports to a trainer."""


def _no_trainer() -> LossError:
    return LossError(
        "training_step asks for its trainer, and there is none. Measure the module while it is "
        "attached to one, or give what the step reads from it to the module itself."
    )
