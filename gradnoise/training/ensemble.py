"""Many runs of one batch size as one program: stacked parameters under `torch.func.vmap`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from ..problem.state.wrappers import trainable
from ..tensors.trees import Batch, TensorDict, map_samples
from .batch_order import BatchOrder
from .checkpoint import Checkpoint
from .plan import Plan
from .record import Record, Run
from .run import ended, in_last, step_losses


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
        self._fresh = models or plan.models(seeds)
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
        self._mean: TensorDict = {}
        self._late = torch.zeros(len(runs), dtype=torch.float64)
        self._optimizer = plan.steps(self._weights, len(runs))

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
        self._monitor = self._plan.monitor(starts)
        for step in range(self._restored(checkpoint.load(), records, tick), self._steps):
            if not self._runs:
                break
            losses, gradients = self.gradients(step)
            self.update(step, gradients)
            self._summarise(step, losses)
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
            self._put(self._weights, place)
            record = ended(self._plan, run, self._model, self._monitor, place)
            if self._mean:
                self._put(self._mean, place)
                averaged, late = self._plan.mean_loss(self._model), float(self._late[place])
                record = replace(record, averaged_loss=averaged, late_loss=late)
            records[run.key] = record
        return list(records.values())

    def _put(self, weights: TensorDict, place: int) -> None:
        """The weights of one run into the model."""
        with torch.no_grad():
            for name, parameter in trainable(self._model).items():
                parameter.copy_(weights[name][place])

    def _summarise(self, step: int, losses: Tensor) -> None:
        """Add the weights to their mean over the last half, the losses to that of the quarter."""
        if not (self._plan.takes_mean and in_last(2, step, self._steps)):
            return
        if in_last(4, step, self._steps):
            self._late = self._late + losses.double().cpu() / math.ceil(self._steps / 4)
        count = step - self._steps + math.ceil(self._steps / 2)
        for name, weight in self._weights.items():
            mean = self._mean.setdefault(name, weight.clone())
            mean += (weight - mean) / (count + 1)

    def _state(self, step: int, records: dict[str, Record]) -> dict[str, Any]:
        return {
            "step": step,
            "records": [asdict(record) for record in records.values()],
            "alive": [run.key for run in self._runs],
            "weights": self._weights,
            "mean": self._mean,
            "late": self._late,
            "memory": self._optimizer.memory,
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
        self._weights, self._mean, self._late = state["weights"], state["mean"], state["late"]
        self._optimizer.memory = state["memory"]
        vars(self._monitor).update(state["monitor"])
        return int(state["step"])

    def gradients(self, step: int) -> tuple[Tensor, TensorDict]:
        """Losses (R,) and gradients (R, ...) of a step, of parameters that take part."""
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
        found = zip(weights, gradients, strict=True)
        return losses.detach(), {name: g for name, g in found if g is not None}

    def update(self, step: int, gradients: TensorDict) -> None:
        """Move the weights of all runs by one step."""
        if self._plan.max_grad_norm is not None:
            gradients = _clipped(gradients, self._plan.max_grad_norm)
        rates = self._lrs * self._plan.factor(step, self._steps)
        self._optimizer.move(self._weights, gradients, rates, step)

    def _keep(self, alive: Tensor) -> None:
        self._runs = [run for run, goes in zip(self._runs, alive.tolist(), strict=True) if goes]
        self._which, self._lrs = self._which[alive], self._lrs[alive]
        self._late = self._late[alive]
        self._weights = {name: weight[alive] for name, weight in self._weights.items()}
        self._mean = {name: weight[alive] for name, weight in self._mean.items()}
        self._optimizer.keep(alive)
        self._monitor.keep(alive)


def _clipped(gradients: TensorDict, most: float) -> TensorDict:
    """The gradient of every run cut to a norm, as torch's `clip_grad_norm_` does."""
    squares = [g.flatten(1).square().sum(1) for g in gradients.values()]
    factors = (most / (torch.stack(squares).sum(0).sqrt() + 1e-6)).clamp(max=1)
    return {
        name: g * factors.to(g).reshape(-1, *[1] * (g.ndim - 1)) for name, g in gradients.items()
    }
