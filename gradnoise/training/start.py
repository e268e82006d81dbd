"""A point of training that runs start from: a model and its optimizer, copied for every run."""

from __future__ import annotations

import copy
import hashlib
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ArgumentError, ModelError, first_line
from ..problem.preconditioner import is_decoupled
from ..tensors.trees import TensorDict
from .steps import Steps, StepSettings

STACKED = {torch.optim.SGD: "sgd", torch.optim.Adam: "adam", torch.optim.AdamW: "adam"}
OTHERS = ("maximize", "amsgrad", "dampening")  # settings that stacked steps do not have
BUFFERS = {"sgd": ("momentum_buffer",), "adam": ("exp_avg", "exp_avg_sq")}


@dataclass(frozen=True)
class Start:
    """Where a model and its optimizer stand; neither is changed.

    Args:
        model: any module that can be copied.
        optimizer: any torch optimizer of its parameters.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer

    @property
    def lr(self) -> float:
        """ε of the first parameter group, the unit of the others.

        Raises:
            ArgumentError: it is not positive.
        """
        lr = float(self.optimizer.param_groups[0]["lr"])
        if not lr > 0:
            raise ArgumentError(
                f"the learning rate of the optimizer's first group must be positive, because runs "
                f"start from multiples of it; got {lr:g}. Is this the first step of a warm-up?"
            )
        return lr

    def copy(self) -> nn.Module:
        """The model once more, without gradients.

        Raises:
            ModelError: it cannot be copied.
        """
        try:
            found = copy.deepcopy(self.model)
        except Exception as error:  # whatever the model's parts have to say
            raise ModelError(
                f"`model` cannot be copied, and runs are trained on copies ({first_line(error)}). "
                f"Detach tensors that it stores, and unwrap it"
            ) from error
        for parameter in found.parameters():
            parameter.grad = None
        return found

    def optimizer_of(self, model: nn.Module) -> torch.optim.Optimizer:
        """The optimizer once more, with its state, for a copy of the model."""
        pairs = zip(self.model.parameters(), model.parameters(), strict=True)
        return copy.deepcopy(self.optimizer, {id(own): other for own, other in pairs})

    def digest(self) -> str:
        """Changes with the state and the settings of the optimizer."""
        state = self.optimizer.state_dict()
        found = hashlib.sha256(repr((type(self.optimizer).__name__, _plain(state))).encode())
        return found.hexdigest()[:16]

    def why_not_stacked(self) -> str | None:
        """What prevents steps on stacked weights; None where they are possible."""
        kind, name = type(self.optimizer), type(self.optimizer).__name__
        if kind not in STACKED:
            return f"{name} is stepped one by one"
        for group in self.optimizer.param_groups:
            for setting in OTHERS:
                if group.get(setting):
                    return f"{name} with {setting} is stepped one by one"
        held = {id(p) for group in self.optimizer.param_groups for p in group["params"]}
        left = [
            n for n, p in self.model.named_parameters() if p.requires_grad and id(p) not in held
        ]
        return f"the optimizer does not hold {left[0]!r}" if left else None

    def steps(self, runs: int) -> Steps:
        """The steps of the optimizer on the stacked weights of so many runs."""
        kind, names = STACKED[type(self.optimizer)], self._names()
        settings: dict[str, StepSettings] = {}
        memory: dict[str, TensorDict] = {"first": {}, "second": {}}
        for group in self.optimizer.param_groups:
            for parameter in group["params"]:
                name, state = names.get(id(parameter)), self.optimizer.state.get(parameter, {})
                if name is None:
                    continue
                settings[name] = self._settings(kind, group, int(state.get("step", 0)))
                for place, buffer in zip(memory, BUFFERS[kind], strict=False):
                    if state.get(buffer) is not None:
                        memory[place][name] = torch.stack([state[buffer].detach()] * runs)
        return Steps(settings, memory)

    def _settings(self, kind: str, group: dict[str, Any], taken: int) -> StepSettings:
        m, second = group.get("betas", (group.get("momentum", 0.0), 0.0))
        return StepSettings(
            kind="nesterov" if group.get("nesterov") else kind,
            pace=float(group["lr"]) / self.lr,
            momentum=float(m),
            second=float(second),
            eps=float(group.get("eps", 0.0)),
            decay=float(group.get("weight_decay", 0.0)),
            decoupled=is_decoupled(self.optimizer, group),
            taken=taken,
        )

    def _names(self) -> dict[int, str]:
        return {id(p): name for name, p in self.model.named_parameters() if p.requires_grad}


def _plain(tree: Any) -> Any:
    """A nesting with the values of its tensors."""
    if isinstance(tree, Tensor):
        return hashlib.sha256(tree.detach().double().cpu().numpy().tobytes()).hexdigest()
    if isinstance(tree, dict):
        return [(str(key), _plain(value)) for key, value in tree.items()]
    if isinstance(tree, (list, tuple)):
        return [_plain(value) for value in tree]
    return repr(tree)
