"""Losses that use other weights than those of the model that is measured."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..errors import LossError
from ..tensors.trees import Batch, select
from .graph import nodes_of
from .objective import Objective
from .state.held import held_by


def refuse_other_model(objective: Objective, batch: Batch) -> None:
    """Raise where no trainable parameter of the model takes part in losses that have a graph.

    Raises:
        LossError: all gradients are None; it says whose weights the losses use instead.
    """
    for part in (select(batch, slice(0, 2)), batch):  # a few may be constant by themselves
        losses = objective.losses(part)
        parameters = [p for p in objective.parameters.values() if p.numel()]
        found = torch.autograd.grad(losses.sum(), parameters, allow_unused=True)
        if any(gradient is not None for gradient in found):
            return
    raise LossError(_message(objective, _used(losses)))


def _message(objective: Objective, used: list[Tensor]) -> str:
    copied = {p.shape for p in used} == {p.shape for p in objective.parameters.values()}
    other = "another copy of the model" if copied else "other tensors that require a gradient"
    named = _named(objective.criterion, used)
    where = f", {named}" if named else ""
    return (
        f"no trainable parameter of `model` takes part in the loss: it is computed from "
        f"{other}{where}. Use the `model` that loss_fn(model, batch) is given, or measure that one"
    )


def _used(losses: Tensor) -> list[Tensor]:
    """The leaves of the graph that require a gradient."""
    found: dict[int, Tensor] = {}
    for node in nodes_of(losses):
        leaf = getattr(node, "variable", None)
        if leaf is not None:
            found[id(leaf)] = leaf
    return list(found.values())


def _named(loss_fn: Any, used: list[Tensor]) -> str:
    """The name under which `loss_fn` holds the module with these weights, and its class."""
    held = {id(tensor) for tensor in used}
    for name, item in held_by(loss_fn):
        if isinstance(item, nn.Module) and any(id(p) in held for p in item.parameters()):
            return f"`{name}` ({type(item).__name__})"
    return ""
