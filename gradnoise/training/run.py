"""One run by torch's own optimizer: for every model, and the reference of `Ensemble`."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

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
    monitor = plan.monitor([start])
    mean = _mean_of(model) if plan.takes_mean else None
    take_step = stepper(plan, run, model)
    late: list[float] = []
    for step in range(run.steps):
        loss = take_step(step)
        if not bool(monitor.see(loss[None])):
            return Record(run, True, step + 1, start, math.inf)
        if mean is not None and in_last(2, step, run.steps):
            mean.update_parameters(model)
        if mean is not None and in_last(4, step, run.steps):
            late.append(float(loss))
    found = ended(plan, run, model, monitor, 0)
    if mean is None:
        return found
    averaged = plan.mean_loss(mean.module)
    return replace(found, averaged_loss=averaged, late_loss=sum(late) / len(late))


def in_last(part: int, step: int, steps: int) -> bool:
    """Whether a step is in the last half (2) or the last quarter (4) of a run."""
    return step >= steps - math.ceil(steps / part)


def _mean_of(model: nn.Module) -> AveragedModel:
    """Takes the mean of weights; buffers are those of the last model."""
    return AveragedModel(model, avg_fn=lambda mean, new, count: mean + (new - mean) / (count + 1))


def stepper(plan: Plan, run: Run, model: nn.Module) -> Callable[[int], Tensor]:
    """A function that trains the model by one step of the run and returns the batch loss."""
    optimizer = plan.optimizer_of(model, run.lr)
    parameters = [p for p in model.parameters() if p.requires_grad]
    base = float(optimizer.param_groups[0]["lr"])
    paces = [float(group["lr"]) / base for group in optimizer.param_groups]
    bound = plan.bound(model)
    samples, _ = plan.on(parameters[0].device)
    order = BatchOrder(plan.count, run.batch_size, run.seed)

    def take_step(step: int) -> Tensor:
        for group, pace in zip(optimizer.param_groups, paces, strict=True):
            group["lr"] = pace * run.lr * plan.factor(step, run.steps)
        model.zero_grad()  # of parameters that the optimizer does not hold as well
        loss = step_losses(bound(select(samples, order.rows(step))), run.batch_size).mean()
        loss.backward(inputs=parameters)  # type: ignore[no-untyped-call]
        if plan.max_grad_norm is not None:
            nn.utils.clip_grad_norm_(parameters, plan.max_grad_norm)
        optimizer.step()
        return loss.detach()

    return take_step


def ended(plan: Plan, run: Run, model: nn.Module, monitor: DivergenceMonitor, place: int) -> Record:
    """The record of a run that came to its end, `place` its position in the monitor."""
    device = next(model.parameters()).device
    end = plan.mean_loss(model)
    others: dict[str, float] = {}
    test_loss = None
    _, test = plan.on(device)
    if test is not None:
        test_loss = mean_over(plan.bound(model), test)
        others = {
            name: mean_over(functools.partial(metric, model), test)
            for name, metric in plan.metrics.items()
        }
    (diverged,) = monitor.at(place).verdict(torch.tensor([end], dtype=torch.float64))
    start = float(monitor.start[place])
    found = Record(run, diverged, None, start, end, test_loss, others)
    if not plan.averages or plan.takes_mean:
        return found
    mean = float(monitor.total[place]) / run.steps
    return replace(found, averaged_loss=end, late_loss=end, mean_batch_loss=mean)


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
