"""The arguments of `gn.sweep` that train as a torch optimizer does."""

from __future__ import annotations

from typing import Any

import torch

from ..errors import ArgumentError
from ..problem.optimizer_settings import read_optimizer
from ..problem.preconditioner import is_decoupled
from ..problem.state.wrappers import bare_optimizer
from ..training.plan import Plan

TORCH = {"SGD": torch.optim.SGD, "Adam": torch.optim.Adam, "AdamW": torch.optim.AdamW}
# the grid has the learning rates, and how a step is computed does not change it
FREE = {"params", "lr", "initial_lr", "foreach", "fused", "capturable", "differentiable"}


def optimizer_arguments(optimizer: torch.optim.Optimizer | None) -> dict[str, Any]:
    """`optimizer`, `momentum` and `weight_decay` of a torch optimizer; none of None.

    Raises:
        ArgumentError: an optimizer that a sweep cannot train with.
    """
    settings, optimizer = read_optimizer(optimizer), bare_optimizer(optimizer)
    if settings is None:
        return {}
    assert isinstance(optimizer, torch.optim.Optimizer)  # or it would not have been read
    if type(optimizer) is not TORCH.get(settings.name):
        raise ArgumentError(
            f"a sweep trains with torch's SGD or Adam; the optimizer is {settings.name}. Use one "
            f"of these two, or leave the optimizer out to train with plain SGD"
        )
    found = {
        "optimizer": settings.kind,
        "momentum": settings.momentum,
        "weight_decay": settings.weight_decay,
    }
    other = _unsupported(optimizer, found)
    if other:
        raise ArgumentError(
            f"a sweep cannot train with {settings.name} and {', '.join(other)}: it knows one "
            f"`momentum` (β₁) and one `weight_decay` (a penalty), otherwise torch's defaults"
        )
    return found


def _unsupported(optimizer: torch.optim.Optimizer, found: dict[str, Any]) -> list[str]:
    """Settings that the optimizer of a sweep would not have."""
    first, decay = optimizer.param_groups[0], found["weight_decay"]
    plan = Plan(torch.nn.Identity, None, None, **found)
    holder = torch.nn.ParameterList(first["params"])
    free = FREE if decay else FREE | {"decoupled_weight_decay"}
    (own,) = plan.optimizer_of(holder, lr=1.0).param_groups
    other = {
        f"{name} = {group[name]}"
        for group in optimizer.param_groups
        for name in group.keys() & own.keys() - free
        if group[name] != own[name]
    }
    if decay and any(is_decoupled(optimizer, group) for group in optimizer.param_groups):
        other.add("decoupled weight decay")
    if len({float(group["lr"]) for group in optimizer.param_groups}) > 1:
        other.add("several learning rates")
    return sorted(other)
