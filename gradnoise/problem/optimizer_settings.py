"""Learning rate, momentum and weight decay, read from a torch optimizer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from ..errors import ArgumentError
from .preconditioner import base_of, is_decoupled
from .state.wrappers import bare_optimizer

PLAIN = ("SGD",)
EARLY = 100  # steps; a shorter average than that is still far off early in training
AVERAGED = {torch.optim.NAdam: "nadam", torch.optim.Adam: "adam", torch.optim.AdamW: "adam"}


@dataclass(frozen=True)
class OptimizerSettings:
    """Settings of the first parameter group.

    Args:
        name: class name.
        lr: ε.
        momentum: m of SGD and RMSprop, β₁ of the Adam family.
        nesterov: whether the momentum is Nesterov's.
        weight_decay: its coefficient.
        notes: what the measurement leaves out or assumes.
        kind: the `optimizer` of `gn.stable_lr` that fits in the metric of this optimizer.
        base: SGD, Adam, ... where it is a subclass of one of them.
        steps: steps that its second moments are from; None where it has none, or is not known.
        settled_after: steps after which they have settled (docs/theory/metric.md); None likewise.
    """

    name: str
    lr: float | None
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    notes: tuple[str, ...] = ()
    kind: str = "sgd"
    base: str = ""
    steps: int | None = None
    settled_after: int | None = None

    @property
    def family(self) -> str:
        """The optimizer of torch that it is, or is a subclass of."""
        return self.base or self.name

    @property
    def is_plain(self) -> bool:
        """Whether its learning rate is that of SGD, with or without momentum."""
        return self.family in PLAIN

    @property
    def is_settled(self) -> bool:
        """Whether its second moments are from enough steps; also where that is not known."""
        if self.steps is None or self.settled_after is None:
            return True
        return self.steps >= self.settled_after


def read_optimizer(
    optimizer: torch.optim.Optimizer | None, metric: str = "euclidean"
) -> OptimizerSettings | None:
    """The settings of an optimizer, with notes for a measurement in a metric; it is only read.

    Raises:
        ArgumentError: not a torch optimizer.
    """
    optimizer = bare_optimizer(optimizer)
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
    nesterov = bool(group.get("nesterov", False))
    averaged = (kind for own, kind in AVERAGED.items() if isinstance(optimizer, own))
    return OptimizerSettings(
        name=name,
        lr=None if group.get("lr") is None else float(group["lr"]),
        momentum=float(betas[0]),
        nesterov=nesterov,
        weight_decay=decay,
        notes=tuple(_notes(optimizer, name, decay, own_metric=metric != "euclidean")),
        kind=next(averaged, "nesterov" if nesterov else "sgd"),
        base=base_of(optimizer),
        steps=_steps(optimizer),
        settled_after=_settled_after(group),
    )


def _steps(optimizer: torch.optim.Optimizer) -> int | None:
    """The fewest steps that the second moments of a parameter are from."""
    steps = [
        int(state["step"])
        for state in optimizer.state.values()
        if "step" in state and ("exp_avg_sq" in state or "square_avg" in state)
    ]
    return min(steps, default=None)


def _settled_after(group: dict[str, Any]) -> int | None:
    """1/(1 - β₂) steps, and no fewer than the gradients of the early phase take to settle."""
    decay = group["betas"][-1] if "betas" in group else group.get("alpha")
    if decay is None:
        return None
    return max(EARLY, round(1 / (1 - float(decay)))) if float(decay) < 1 else EARLY


def _notes(
    optimizer: torch.optim.Optimizer, name: str, decay: float, *, own_metric: bool
) -> Iterator[str]:
    groups, rates = optimizer.param_groups, "the first group's is reported"
    if own_metric:
        rates = "those here are the first group's, the others in proportion"
    plain = (base_of(optimizer) or name) in PLAIN
    if not plain and own_metric:
        yield (
            f"all is in the metric of {name} with its second moments held as they are now. They "
            f"follow the batch size: below the noise scale the learning rate that they allow grows "
            f"with √B where the rule here grows with B"
        )
    elif not plain:
        yield (
            f"noise scales and limits of the learning rate here are those of plain SGD at the same "
            f"point, not of {name}"
        )
    if any(group.get("dampening", 0) for group in groups):
        yield "dampening is not taken into account: formulas are those of dampening 0"
    if len({float(group.get("lr") or 0.0) for group in groups}) > 1:
        yield f"the optimizer has several learning rates; {rates}"
    if own_metric and isinstance(optimizer, torch.optim.Adafactor):
        yield "Adafactor's clipping of its steps is left out"
    decays = [group for group in groups if group.get("weight_decay")]
    if own_metric and any(is_decoupled(optimizer, group) for group in decays):
        yield "decoupled weight decay is counted in the sharpness alone"
    elif own_metric and decays:
        yield "weight decay is counted in gradient and curvature, and not in the loss"
    elif decay:
        yield (
            f"the loss is measured without the optimizer's weight decay of {decay:g}, which SGD "
            f"would add to the curvature"
        )
