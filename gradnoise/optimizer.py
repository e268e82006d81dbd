"""What a torch optimizer says about how a model is trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from .errors import ArgumentError

PLAIN = ("SGD",)


@dataclass(frozen=True)
class OptimizerSettings:
    """Settings of the first parameter group.

    Args:
        name: class name.
        lr: ε.
        momentum: m of SGD and RMSprop, β₁ of the Adam family.
        nesterov: whether the momentum is Nesterov's.
        weight_decay: its coefficient.
        notes: what the reader should know.
    """

    name: str
    lr: float | None
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    notes: tuple[str, ...] = ()

    @property
    def is_plain(self) -> bool:
        """Whether its learning rate means what it means in plain or heavy-ball SGD."""
        return self.name in PLAIN


def read_optimizer(optimizer: torch.optim.Optimizer | None) -> OptimizerSettings | None:
    """The settings of an optimizer; it is only read.

    Raises:
        ArgumentError: not a torch optimizer.
    """
    if optimizer is None:
        return None
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise ArgumentError(
            f"`optimizer` must be a torch.optim.Optimizer; got {type(optimizer).__name__}"
        )
    group: dict[str, Any] = optimizer.param_groups[0]
    name = type(optimizer).__name__
    betas = group.get("betas", (group.get("momentum", 0.0),))
    decay = float(group.get("weight_decay", 0.0) or 0.0)
    return OptimizerSettings(
        name=name,
        lr=None if group.get("lr") is None else float(group["lr"]),
        momentum=float(betas[0]),
        nesterov=bool(group.get("nesterov", False)),
        weight_decay=decay,
        notes=tuple(_notes(optimizer, name, decay)),
    )


def _notes(optimizer: torch.optim.Optimizer, name: str, decay: float) -> list[str]:
    notes = []
    if name not in PLAIN:
        notes.append(
            f"{name} rescales the gradient: noise scales and learning rate limits here are those "
            f"of plain SGD in the same place, not of {name}"
        )
    if any(group.get("dampening", 0) for group in optimizer.param_groups):
        notes.append("dampening is not taken into account: formulas are those of dampening 0")
    if len({group.get("lr") for group in optimizer.param_groups}) > 1:
        notes.append("the optimizer has several learning rates; the first group's is reported")
    if decay:
        notes.append(
            f"the loss is measured without the optimizer's weight decay of {decay:g}, which SGD "
            f"would add to the curvature"
        )
    return notes
