"""The preconditioner of an optimizer's step and its weight decay, read from its state."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import ArgumentError
from ..tensors.trees import TensorDict, compute_dtype, widen
from .shards import needs_whole
from .state.sharded import is_dtensor, local
from .state.wrappers import bare_optimizer

METRICS = ("euclidean", "optimizer", "auto")


@dataclass(frozen=True, eq=False)
class Preconditioner:
    """P and the weight decay of the step w ← w - ε(P⁻¹(g + Dw) + Ew).

    In z = P^½w the step is z ← z - ε(P^-½(g + Dw) + Ez): the gradient is P^-½(g + Dw), the
    Hessian P^-½(H + D)P^-½. A group with another learning rate ε_g than the first group's ε has
    P ε/ε_g and E ε_g/ε: all is in units of the first learning rate.

    Args:
        root: P^-½ by parameter, float32 at least; of parameters that ranks share, of its part.
        inside, outside: D and E by parameter.
    """

    root: TensorDict
    inside: dict[str, float]
    outside: dict[str, float]

    @classmethod
    def of(cls, optimizer: torch.optim.Optimizer, parameters: TensorDict) -> Preconditioner:
        """P, D and E of an optimizer that has taken a step; the formulas are in `Preconditioned`.

        Raises:
            ArgumentError: another optimizer, that of another model, no step taken, a parameter it
                does not hold, `maximize`, or a first learning rate of 0 when another is not.
            ShardedError: Adafactor, where each rank has a part of its state.
        """
        optimizer = bare_optimizer(optimizer)
        kind = next((kind for kind in _SCALES if isinstance(optimizer, kind)), None)
        if kind is None:
            raise ArgumentError(_unknown(type(optimizer).__name__))
        groups = {id(p): group for group in optimizer.param_groups for p in group["params"]}
        if groups.keys().isdisjoint(map(id, parameters.values())):
            raise ArgumentError(
                "the optimizer holds no parameter of this model: it trains another one, of which "
                "this may be a copy or an average (EMA). Measure the model that it trains, or "
                "leave `optimizer` out"
            )
        found = cls({}, {}, {})
        for name, parameter in parameters.items():
            group = _checked(groups.get(id(parameter)), name)
            state = optimizer.state.get(parameter, {})
            if is_dtensor(parameter):
                parameter, state = _of_parts(kind, parameter, state)
            scale = _SCALES[kind](state, group, parameter)
            if scale is None:
                raise ArgumentError(
                    f"{type(optimizer).__name__} holds no state for {name!r} yet: take a step "
                    f"first, and freeze what takes no part in the loss"
                )
            pace, decay = _pace(group, optimizer.param_groups[0]), group.get("weight_decay") or 0.0
            root = (widen(scale.detach().to(parameter.device)) / pace).rsqrt()
            found.root[name] = root.to(compute_dtype([parameter]))
            found.inside[name], found.outside[name] = float(decay), 0.0
            if is_decoupled(optimizer, group):
                found.inside[name], found.outside[name] = 0.0, pace * float(decay)
        return found

    @property
    def is_coupled(self) -> bool:
        """Whether weight decay is a part of the gradients."""
        return any(self.inside.values())

    @property
    def is_decayed(self) -> bool:
        """Whether the step has decoupled weight decay."""
        return any(self.outside.values())

    def flat(self, values: dict[str, float] | TensorDict, like: Tensor) -> Tensor:
        """Values by name as one vector, shape (P,), of the dtype of `like`."""
        parts = [torch.zeros_like(root) + values[name] for name, root in self.root.items()]
        return torch.cat([part.reshape(-1).to(like) for part in parts])

    def decoupled(self, block: Tensor) -> Tensor:
        """E times a vector (P,) or a block (P, k)."""
        return torch.einsum("p,p...->p...", self.flat(self.outside, block), block)

    def around(self, products: Callable[[Tensor], Tensor], block: Tensor) -> Tensor:
        """P^-½(A + D)P^-½ times a block (P, k), from the products with A."""
        root, inside = (self.flat(v, block)[:, None] for v in (self.root, self.inside))
        inner = root * block
        return root * (products(inner) + inside * inner)


def check_metric(metric: str, optimizer: Any) -> None:
    """Raise ArgumentError for an unknown metric, or one without its optimizer."""
    if metric not in METRICS:
        raise ArgumentError(f"`metric` must be one of {', '.join(METRICS)}; got {metric!r}")
    if metric == "optimizer" and not isinstance(optimizer, torch.optim.Optimizer):
        raise ArgumentError(
            f"metric='optimizer' needs `optimizer`, the torch.optim.Optimizer that trains the "
            f"model; got {type(optimizer).__name__}"
        )


def is_adaptive(optimizer: Any) -> bool:
    """Whether it scales the gradient by a P that is read from its state."""
    return isinstance(optimizer, tuple(own for own in _SCALES if own is not torch.optim.SGD))


def base_of(optimizer: torch.optim.Optimizer) -> str:
    """The optimizer whose P it has, where it is a subclass of that; empty otherwise."""
    if type(optimizer) in _SCALES:
        return ""
    return next((own.__name__ for own in _SCALES if isinstance(optimizer, own)), "")


def is_decoupled(optimizer: torch.optim.Optimizer, group: dict[str, Any]) -> bool:
    """Whether weight decay is added to the step and not to the gradient."""
    always = isinstance(optimizer, (torch.optim.AdamW, torch.optim.Adafactor))
    return always or bool(group.get("decoupled_weight_decay"))


def _unknown(name: str) -> str:
    """Why there is no P, and what can be measured without one."""
    own = next((what for word, what in _WITHOUT.items() if word in name.lower()), None)
    if own is None:
        known = ", ".join(kind.__name__ for kind in _SCALES)
        return (
            f"the preconditioner of {name} is not known; use one of {known}, or "
            f"metric='euclidean'. gn.critical_lr takes any optimizer"
        )
    return (
        f"{name} has no preconditioner: its step is {own[0]}, which is no matrix times the "
        f"gradient. What holds for it: gn.critical_lr and gn.branch, the learning rate along its "
        f"own steps, and gn.{own[1]}_noise_scale, the noise scale in its own norm. "
        f"metric='euclidean' has the numbers of plain SGD"
    )


_WITHOUT = {  # by a part of the name: these optimizers are not torch's, Muon since 2.9
    "lion": ("the sign of an average of gradients", "sign"),
    "sign": ("the sign of a gradient", "sign"),
    "muon": ("the orthogonal factor of an average of gradients", "spectral"),
}


def _checked(group: dict[str, Any] | None, name: str) -> dict[str, Any]:
    if group is None:
        raise ArgumentError(
            f"the optimizer does not hold parameter {name!r}: freeze what is not trained"
        )
    if group.get("maximize"):
        raise ArgumentError(
            "the optimizer has maximize=True, but limits of the learning rate are defined for "
            "minimisation; minimise the negative loss instead"
        )
    return group


def _of_parts(
    kind: type[Any], parameter: Any, state: dict[str, Any]
) -> tuple[Tensor, dict[str, Any]]:
    """This rank's part of a parameter and of its state, of which P is a function by entry."""
    if kind is torch.optim.Adafactor:
        raise needs_whole("P of Adafactor")
    return local(parameter), {name: local(value) for name, value in state.items()}


def _pace(group: dict[str, Any], first: dict[str, Any]) -> float:
    """Learning rate in units of the first group's."""
    own, base = float(group["lr"]), float(first["lr"])
    if own == base:
        return 1.0
    if base == 0:
        raise ArgumentError(
            f"the first group's learning rate is the unit of the others and must not be 0 when "
            f"another is not; got {own:g} in another group"
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


def _adagrad(state: dict[str, Any], group: dict[str, Any], _: Tensor) -> Tensor | None:
    steps = float(state.get("step", 0))
    if not steps:  # the sum is there from the start, and empty
        return None
    return (state["sum"].sqrt() + group["eps"]) * (1 + steps * group["lr_decay"])  # type: ignore[no-any-return]


def _adafactor(state: dict[str, Any], group: dict[str, Any], parameter: Tensor) -> Tensor | None:
    steps = float(state.get("step", 0))
    if not steps:
        return None
    least, floor = group["eps"]
    least = torch.finfo(parameter.dtype).eps if least is None else least
    if "variance" in state:
        square = state["variance"]
    else:
        rows, columns = state["row_var"], state["col_var"]
        square = rows @ columns / rows.mean(-2, keepdim=True).clamp_min(least)
    size = max(floor, float(parameter.detach().norm()) / parameter.numel() ** 0.5)
    capped = max(1.0, float(group["lr"]) * (steps + 1) ** 0.5)  # the rate is 1/√steps at most
    return square.clamp_min(least**2).sqrt() * (capped / size)  # type: ignore[no-any-return]


_SCALES: dict[type[torch.optim.Optimizer], Any] = {
    torch.optim.SGD: _plain,
    torch.optim.Adam: _adam,
    torch.optim.AdamW: _adam,
    torch.optim.NAdam: _adam,
    torch.optim.RMSprop: _rmsprop,
    torch.optim.Adagrad: _adagrad,
    torch.optim.Adafactor: _adafactor,
}
