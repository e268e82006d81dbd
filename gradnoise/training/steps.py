"""The steps of torch's SGD, Adam and AdamW on stacked weights, a run in every row."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..tensors.trees import TensorDict


@dataclass(frozen=True)
class StepSettings:
    """How one parameter is stepped.

    Args:
        kind: "sgd" (heavy ball), "nesterov" or "adam".
        pace: its learning rate over that of the run.
        momentum: m, or β₁.
        second, eps: β₂ and eps of Adam.
        decay, decoupled: weight decay, and whether it is added to the step and not to the gradient.
        taken: steps that were taken before.
    """

    kind: str = "sgd"
    pace: float = 1.0
    momentum: float = 0.0
    second: float = 0.999
    eps: float = 1e-8
    decay: float = 0.0
    decoupled: bool = False
    taken: int = 0


class Steps:
    """Moves stacked weights (R, ...), with the buffers that an optimizer keeps.

    Args:
        settings: by parameter name.
        memory: the buffers "first" and "second" by parameter name, shape (R, ...).
    """

    def __init__(
        self, settings: dict[str, StepSettings], memory: dict[str, TensorDict] | None = None
    ) -> None:
        self._settings = settings
        self.memory = memory or {"first": {}, "second": {}}

    def keep(self, alive: Tensor) -> None:
        """Go on with these runs alone."""
        self.memory = {
            kind: {name: buffer[alive] for name, buffer in buffers.items()}
            for kind, buffers in self.memory.items()
        }

    def move(self, weights: TensorDict, gradients: TensorDict, rates: Tensor, step: int) -> None:
        """One step, in place.

        Args:
            weights: shape (R, ...) by name.
            gradients: likewise, of the parameters that take part; torch leaves the others too.
            rates: ε of every run, shape (R,).
            step: how many steps these runs have taken.
        """
        for name, gradient in gradients.items():
            own, weight = self._settings[name], weights[name]
            rate = (own.pace * rates).to(weight).reshape(-1, *[1] * (weight.ndim - 1))
            if own.decay and own.decoupled:
                weight *= 1 - rate * own.decay
            elif own.decay:
                gradient = gradient + own.decay * weight
            find = self._adam if own.kind == "adam" else self._momentum
            weight -= rate * find(name, own, gradient, own.taken + step + 1)

    def _momentum(self, name: str, own: StepSettings, gradient: Tensor, _count: int) -> Tensor:
        if not own.momentum:
            return gradient
        old = self.memory["first"].get(name)
        new = gradient.clone() if old is None else old.mul_(own.momentum).add_(gradient)
        self.memory["first"][name] = new
        return gradient + own.momentum * new if own.kind == "nesterov" else new

    def _adam(self, name: str, own: StepSettings, gradient: Tensor, count: int) -> Tensor:
        first, second = (
            self.memory[kind].setdefault(name, torch.zeros_like(gradient))
            for kind in ("first", "second")
        )
        first.lerp_(gradient, 1 - own.momentum)
        second.mul_(own.second).addcmul_(gradient, gradient, value=1 - own.second)
        scale = (second / (1 - own.second**count)).sqrt_().add_(own.eps)
        return first / (1 - own.momentum**count) / scale
