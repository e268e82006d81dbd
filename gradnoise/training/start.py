"""A point of training that runs start from: a model and its optimizer, copied for every run."""

from __future__ import annotations

import copy
import hashlib
import inspect
import math
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
        given = self.optimizer.param_groups[0].get("lr")
        lr = math.nan if given is None else float(given)
        if not 0 < lr < math.inf:
            raise ArgumentError(
                f"the learning rate of the optimizer's first group must be positive, because runs "
                f"start from multiples of it; got {given}. Is this the first step of a warm-up?"
            )
        return lr

    @property
    def left(self) -> list[nn.Parameter]:
        """The parameters that require a gradient and that the optimizer does not hold."""
        held = {id(p) for group in self.optimizer.param_groups for p in group["params"]}
        return [p for p in self.model.parameters() if p.requires_grad and id(p) not in held]

    def check(self) -> None:
        """Whether runs can be trained from here.

        Raises:
            ArgumentError: no learning rate, an optimizer of another model, or one whose `step`
                needs a closure.
            ModelError: parameters that are not initialised yet.
        """
        for name, parameter in self.model.named_parameters():
            if isinstance(parameter, nn.parameter.UninitializedParameter):
                raise ModelError(
                    f"parameter {name!r} is not initialised yet; run the model once on a batch "
                    f"first, then make the optimizer"
                )
        own = {id(parameter) for parameter in self.model.parameters()}
        held = [p for group in self.optimizer.param_groups for p in group["params"]]
        if not any(id(parameter) in own for parameter in held):
            raise ArgumentError(
                "`optimizer` holds no parameter of `model`: make it from model.parameters(), after "
                "the model was moved or wrapped"
            )
        if not any(id(p) in own and p.requires_grad for p in held):
            raise ArgumentError(
                "`optimizer` holds only frozen parameters of `model`, and runs would train "
                "nothing: make it from the parameters that require a gradient"
            )
        closure = inspect.signature(type(self.optimizer).step).parameters.get("closure")
        if closure is not None and closure.default is closure.empty:
            raise ArgumentError(
                f"{type(self.optimizer).__name__}.step needs a closure, and runs call step() "
                f"after one gradient per batch: give the optimizer of such steps"
            )
        _ = self.lr

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
        """The optimizer once more, with its state, for a copy of the model.

        Raises:
            ArgumentError: it cannot be copied.
        """
        pairs = zip(self.model.parameters(), model.parameters(), strict=True)
        memo: dict[int, Any] = {id(own): other for own, other in pairs}
        try:
            found = copy.deepcopy(self.optimizer, memo)
            for name, value in vars(self.optimizer).items():  # torch copies state and groups alone
                wrapped = callable(value) and hasattr(type(found), name)  # `step` by a scheduler
                if name not in vars(found) and not wrapped:
                    setattr(found, name, copy.deepcopy(value, memo))
        except Exception as error:  # whatever its attributes have to say
            raise ArgumentError(
                f"`optimizer` cannot be copied, and runs are trained with copies "
                f"({first_line(error)}). Keep what cannot be copied out of it"
            ) from error
        return found

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
        left = {id(p) for p in self.left}
        names = [name for name, p in self.model.named_parameters() if id(p) in left]
        return f"the optimizer does not hold {names[0]!r}" if names else None

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
