"""Many runs of one batch size as one program: stacked parameters under `torch.func.vmap`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from ..tensors.trees import Batch, TensorDict, map_samples
from .batch_order import BatchOrder
from .checkpoint import Checkpoint
from .divergence import DivergenceMonitor
from .plan import Plan
from .record import Record, Run
from .run import ended, step_losses


class Ensemble:
    """Runs with the same batch size and number of steps.

    Args:
        plan: the plan of the sweep.
        runs: runs with any learning rates and seeds.
        models: fresh models by seed, where there are any.
    """

    def __init__(
        self, plan: Plan, runs: list[Run], models: dict[int, nn.Module] | None = None
    ) -> None:
        self._plan, self._runs = plan, list(runs)
        self._size, self._steps = runs[0].batch_size, runs[0].steps
        seeds = sorted({run.seed for run in runs})
        self._fresh = models or {seed: plan.model(seed) for seed in seeds}
        self._model = self._fresh[seeds[0]]
        self._bound = plan.bound(self._model)
        self._samples, _ = plan.on(next(self._model.parameters()).device)
        self._orders = [BatchOrder(plan.count, self._size, seed) for seed in seeds]
        self._which = torch.tensor([seeds.index(run.seed) for run in runs])
        self._lrs = torch.tensor([run.lr for run in runs], dtype=torch.float64)
        self._weights: TensorDict = {
            name: torch.stack([trainable(self._fresh[run.seed])[name].detach() for run in runs])
            for name in trainable(self._model)
        }
        self._update = _UPDATES[plan.optimizer](plan)

    def run(self, tick: Callable[[int], None], checkpoint: Checkpoint) -> list[Record]:
        """Train all runs to their ends, from the state of the checkpoint.

        Args:
            tick: progress callback, called with the steps that are done, times runs.
            checkpoint: of these runs.
        """
        records: dict[str, Record] = {}
        for seed, model in self._fresh.items():
            self._plan.start_loss(seed, model)
        self._fresh = {}
        starts = [self._plan.start_loss(run.seed) for run in self._runs]
        self._monitor = DivergenceMonitor(
            torch.tensor(starts, dtype=torch.float64), self._plan.tolerates_spikes
        )
        for step in range(self._restored(checkpoint.load(), records, tick), self._steps):
            if not self._runs:
                break
            losses, gradients = self.gradients(step)
            self.update(step, gradients)
            alive = self._monitor.see(losses)
            tick(len(self._runs))
            if not bool(alive.all()):
                for place in (~alive).nonzero().flatten().tolist():
                    run, start = self._runs[place], float(self._monitor.start[place])
                    records[run.key] = Record(run, True, step + 1, start, math.inf)
                    tick(self._steps - step - 1)
                self._keep(alive)
            if checkpoint.is_due:
                checkpoint.save(self._state(step + 1, records))
        for place, run in enumerate(self._runs):
            own = {name: weight[place] for name, weight in self._weights.items()}
            with torch.no_grad():
                for name, parameter in trainable(self._model).items():
                    parameter.copy_(own[name])
            records[run.key] = ended(self._plan, run, self._model, self._monitor, place)
        return list(records.values())

    def _state(self, step: int, records: dict[str, Record]) -> dict[str, Any]:
        return {
            "step": step,
            "records": [asdict(record) for record in records.values()],
            "alive": [run.key for run in self._runs],
            "weights": self._weights,
            "memory": self._update.memory,
            "monitor": vars(self._monitor),
        }

    def _restored(
        self,
        state: dict[str, Any] | None,
        records: dict[str, Record],
        tick: Callable[[int], None],
    ) -> int:
        """The step to go on with; what is saved put in place."""
        if state is None:
            return 0
        records.update({r.run.key: r for r in map(Record.from_dict, state["records"])})
        tick(state["step"] * len(self._runs))
        tick(sum(self._steps - state["step"] for _ in records))
        self._keep(torch.tensor([run.key in state["alive"] for run in self._runs]))
        self._weights = state["weights"]
        self._update.memory = state["memory"]
        vars(self._monitor).update(state["monitor"])
        return int(state["step"])

    def gradients(self, step: int) -> tuple[Tensor, TensorDict]:
        """Losses (R,) and gradients (R, ...) of a step."""
        rows = torch.stack([order.rows(step) for order in self._orders])[self._which]
        batch = map_samples(lambda leaf: leaf[rows.to(leaf.device)], self._samples)
        weights = {name: w.detach().requires_grad_() for name, w in self._weights.items()}

        def losses_of(own: TensorDict, samples: Batch) -> Tensor:
            found: Tensor = functional_call(
                self._bound, {f"model.{name}": w for name, w in own.items()}, (samples,)
            )
            return step_losses(found, self._size).mean()

        losses = vmap(losses_of)(weights, batch)
        gradients = torch.autograd.grad(losses.sum(), list(weights.values()), allow_unused=True)
        return losses.detach(), {
            name: torch.zeros_like(w) if g is None else g
            for (name, w), g in zip(weights.items(), gradients, strict=True)
        }

    def update(self, step: int, gradients: TensorDict) -> None:
        """Move the weights of all runs by one step."""
        rates = self._lrs * self._plan.factor(step, self._steps)
        for name, weight in self._weights.items():
            gradient = gradients[name]
            if self._plan.weight_decay:
                gradient = gradient + self._plan.weight_decay * weight
            rate = rates.to(weight).reshape(-1, *[1] * (weight.ndim - 1))
            weight -= rate * self._update.direction(name, gradient, step)

    def _keep(self, alive: Tensor) -> None:
        self._runs = [run for run, goes in zip(self._runs, alive.tolist(), strict=True) if goes]
        self._which, self._lrs = self._which[alive], self._lrs[alive]
        self._weights = {name: weight[alive] for name, weight in self._weights.items()}
        self._update.keep(alive)
        self._monitor.keep(alive)


class _Update:
    """The buffers of an optimizer, by kind and parameter name."""

    def __init__(self, plan: Plan) -> None:
        self.momentum, self.nesterov = plan.momentum, plan.optimizer == "nesterov"
        self.memory: dict[str, TensorDict] = {"first": {}, "second": {}}

    def keep(self, alive: Tensor) -> None:
        """Go on with these runs alone."""
        self.memory = {
            kind: {name: buffer[alive] for name, buffer in buffers.items()}
            for kind, buffers in self.memory.items()
        }


class _Momentum(_Update):
    """SGD, heavy ball and Nesterov as torch has them."""

    def direction(self, name: str, gradient: Tensor, _step: int) -> Tensor:
        """The direction that the learning rate is multiplied with."""
        if not self.momentum:
            return gradient
        old = self.memory["first"].get(name)
        new = gradient.clone() if old is None else old.mul_(self.momentum).add_(gradient)
        self.memory["first"][name] = new
        return gradient + self.momentum * new if self.nesterov else new


class _Adam(_Update):
    """Adam as torch has it, β₂ = 0.999 and eps = 10⁻⁸."""

    def direction(self, name: str, gradient: Tensor, step: int) -> Tensor:
        """The direction that the learning rate is multiplied with."""
        zeros = torch.zeros_like(gradient)
        first = self.memory["first"].setdefault(name, zeros.clone())
        second = self.memory["second"].setdefault(name, zeros)
        first.lerp_(gradient, 1 - self.momentum)
        second.mul_(0.999).addcmul_(gradient, gradient, value=0.001)
        scale = (second / (1 - 0.999 ** (step + 1))).sqrt_().add_(1e-8)
        return first / (1 - self.momentum ** (step + 1)) / scale


_UPDATES: dict[str, Any] = {"sgd": _Momentum, "nesterov": _Momentum, "adam": _Adam}


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that require a gradient, by name."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}
