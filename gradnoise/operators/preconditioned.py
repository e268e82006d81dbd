"""Curvature as an optimizer sees it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..errors import ArgumentError, OperatorError
from .base import Operator
from .model import ModelOperator


class Preconditioned(Operator):
    """P^-½(A + D)P^-½ + E with P read from a torch optimizer's state, shape (P, P), symmetric.

    It has the eigenvalues of P⁻¹(A + D) + E, which decide the stability of the optimizer's steps
    (Cohen et al. 2022, arXiv:2207.14484).

    | optimizer | diagonal of P | weight decay c |
    |---|---|---|
    | SGD | 1 | D = c |
    | Adam, NAdam | √(v/(1 - β₂ᵗ)) + eps; amsgrad: v the largest so far | D = c |
    | AdamW, decoupled | the same | E = c |
    | RMSprop | √v + eps; centred: v less the squared mean | D = c |

    A group with another learning rate ε_g than the first group's ε has P ε/ε_g and E ε_g/ε: all
    is in units of the first learning rate.

    Args:
        operator: a symmetric operator of a model: `Hessian`, `GaussNewton`.
        optimizer: a torch optimizer over its parameters that has taken a step. Its state is read
            now; make a new one after more steps.

    Raises:
        ArgumentError: another optimizer, no step taken, a parameter that it does not hold,
            `maximize`, or a first learning rate of 0 beside others.
        OperatorError: not an operator of a model that is square in its parameters.
    """

    def __init__(self, operator: ModelOperator, optimizer: torch.optim.Optimizer) -> None:
        if not (isinstance(operator, ModelOperator) and operator.rows_are_parameters):
            raise OperatorError(
                f"a preconditioned operator is made of a model's own (Hessian, GaussNewton); got "
                f"{type(operator).__name__}. Restrict, scale or add afterwards"
            )
        found = _diagonals(operator, optimizer)
        scale, inside, outside = (torch.cat(parts) for parts in zip(*found, strict=True))
        self._operator = operator
        self._root, self._inside, self._outside = scale.rsqrt(), inside, outside
        self.shape, self.dtype, self.device = operator.shape, operator.dtype, operator.device
        self.parameters, self.rows_are_parameters = operator.parameters, True

    @property
    def resolution(self) -> float:
        return self._operator.resolution

    @property
    def T(self) -> Preconditioned:
        return self

    def products(self, block: Tensor) -> Tensor:
        root = self._root[:, None]
        inner = root * block
        product = self._operator.products(inner) + self._inside[:, None] * inner
        return root * product + self._outside[:, None] * block


def _diagonals(
    operator: ModelOperator, optimizer: torch.optim.Optimizer
) -> list[tuple[Tensor, Tensor, Tensor]]:
    kind = next((kind for kind in _SCALES if isinstance(optimizer, kind)), None)
    if kind is None:
        known = ", ".join(own.__name__ for own in _SCALES)
        raise ArgumentError(
            f"the preconditioner of {type(optimizer).__name__} is not known; known are {known}"
        )
    groups = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    found = []
    for name, parameter in operator.problem.objective.parameters.items():
        group = groups.get(id(parameter))
        if group is None:
            raise ArgumentError(
                f"the optimizer does not hold parameter {name!r}: freeze what is not trained"
            )
        if group.get("maximize"):
            raise ArgumentError("an optimizer that maximizes has no minimum to be stable at")
        scale = _SCALES[kind](optimizer.state.get(parameter, {}), group, parameter)
        if scale is None:
            raise ArgumentError(
                f"{type(optimizer).__name__} holds no state for {name!r} yet: take a step first"
            )
        pace = _pace(group, optimizer.param_groups[0])
        decay = torch.full_like(scale, float(group.get("weight_decay") or 0.0))
        none = torch.zeros_like(scale)
        decoupled = isinstance(optimizer, torch.optim.AdamW) or group.get("decoupled_weight_decay")
        parts = (scale / pace, *((none, pace * decay) if decoupled else (decay, none)))
        found.append(tuple(part.reshape(-1).to(operator.dtype) for part in parts))
    return found  # type: ignore[return-value]


def _pace(group: dict[str, Any], first: dict[str, Any]) -> float:
    """Learning rate in units of the first group's."""
    own, base = float(group["lr"]), float(first["lr"])
    if own == base:
        return 1.0
    if base == 0:
        raise ArgumentError(
            f"the first group's learning rate is the unit and must not be 0 beside others; got "
            f"another one of {own:g}"
        )
    return own / base


def _plain(_state: dict[str, Any], _group: dict[str, Any], parameter: Tensor) -> Tensor | None:
    return torch.ones_like(parameter, requires_grad=False)


def _adam(state: dict[str, Any], group: dict[str, Any], _: Tensor) -> Tensor | None:
    if "exp_avg_sq" not in state:
        return None
    square = state["max_exp_avg_sq" if group.get("amsgrad") else "exp_avg_sq"]
    unbiased = square / (1 - group["betas"][1] ** float(state["step"]))
    return unbiased.sqrt() + group["eps"]  # type: ignore[no-any-return]


def _rmsprop(state: dict[str, Any], group: dict[str, Any], _: Tensor) -> Tensor | None:
    if "square_avg" not in state:
        return None
    square = state["square_avg"]
    if group.get("centered"):
        square = (square - state["grad_avg"].square()).clamp_min(0)  # rounding
    return square.sqrt() + group["eps"]  # type: ignore[no-any-return]


_SCALES: dict[type[torch.optim.Optimizer], Any] = {
    torch.optim.SGD: _plain,
    torch.optim.Adam: _adam,
    torch.optim.AdamW: _adam,
    torch.optim.NAdam: _adam,
    torch.optim.RMSprop: _rmsprop,
}
