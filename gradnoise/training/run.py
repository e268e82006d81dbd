"""One run by torch's own optimizer: for every model, and the reference of `Ensemble`."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..errors import LossError
from ..tensors.trees import select
from .batch_order import BatchOrder
from .divergence import DivergenceMonitor
from .plan import Plan, mean_over
from .record import Record, Run


def train(plan: Plan, run: Run) -> tuple[Record, nn.Module]:
    """Train one model to the end of its budget, or until it diverges."""
    with torch.random.fork_rng():
        model = plan.model(run.seed)
        torch.manual_seed(run.seed)
        return _train(plan, run, model), model


def _train(plan: Plan, run: Run, model: nn.Module) -> Record:
    start = plan.start_loss(run.seed)
    monitor = DivergenceMonitor(torch.tensor([start], dtype=torch.float64), plan.tolerates_spikes)
    take_step = stepper(plan, run, model)
    for step in range(run.steps):
        if not bool(monitor.see(take_step(step)[None])):
            return Record(run, True, step + 1, start, math.inf)
    return ended(plan, run, model, monitor, 0)


def stepper(plan: Plan, run: Run, model: nn.Module) -> Callable[[int], Tensor]:
    """A function that trains the model by one step of the run and returns the batch loss."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = make_optimizer(plan, parameters, run.lr)
    bound = plan.bound(model)
    samples, _ = plan.on(parameters[0].device)
    order = BatchOrder(plan.count, run.batch_size, run.seed)

    def take_step(step: int) -> Tensor:
        for group in optimizer.param_groups:
            group["lr"] = run.lr * plan.factor(step, run.steps)
        optimizer.zero_grad()
        loss = step_losses(bound(select(samples, order.rows(step))), run.batch_size).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return loss.detach()

    return take_step


def make_optimizer(plan: Plan, parameters: list[nn.Parameter], lr: float) -> torch.optim.Optimizer:
    """torch's optimizer of a plan."""
    if plan.optimizer == "adam":
        betas = (plan.momentum, 0.999)
        return torch.optim.Adam(parameters, lr=lr, betas=betas, weight_decay=plan.weight_decay)
    return torch.optim.SGD(
        parameters,
        lr=lr,
        momentum=plan.momentum,
        nesterov=plan.optimizer == "nesterov",
        weight_decay=plan.weight_decay,
    )


def ended(plan: Plan, run: Run, model: nn.Module, monitor: DivergenceMonitor, place: int) -> Record:
    """The record of a run that came to its end, `place` its position in the monitor."""
    bound, device = plan.bound(model), next(model.parameters()).device
    samples, test = plan.on(device)
    end = mean_over(bound, samples)
    others: dict[str, float] = {}
    test_loss = None
    if test is not None:
        test_loss = mean_over(bound, test)
        others = {
            name: mean_over(functools.partial(metric, model), test)
            for name, metric in plan.metrics.items()
        }
    alone = DivergenceMonitor(monitor.start[place : place + 1], plan.tolerates_spikes)
    alone.peak = monitor.peak[place : place + 1]
    (diverged,) = alone.verdict(torch.tensor([end], dtype=torch.float64))
    return Record(run, diverged, None, float(alone.start), end, test_loss, others)


def step_losses(losses: Tensor, count: int) -> Tensor:
    """The losses of a step, checked.

    Raises:
        LossError: not one loss per sample.
    """
    if losses.shape[-1:] != (count,):
        raise LossError(
            f"loss_fn must return one loss per sample, shape ({count},); got shape "
            f"{tuple(losses.shape)}. Use reduction='none', or pass the torch criterion itself."
        )
    return losses
