"""One run by torch's own optimizer: right for every model, and what the ensemble is held to."""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor, nn

from ..errors import LossError
from ..tensors.trees import select
from .plan import Order, Plan, Record, Run, Watch, mean_over


def train(plan: Plan, run: Run) -> tuple[Record, nn.Module]:
    """Train one model to the end of its budget, or until it diverges."""
    with torch.random.fork_rng():
        model = plan.model(run.seed)
        torch.manual_seed(run.seed)
        return _train(plan, run, model), model


def _train(plan: Plan, run: Run, model: nn.Module) -> Record:
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = make_optimizer(plan, parameters, run.lr)
    bound = plan.bound(model)
    samples, _ = plan.on(parameters[0].device)
    start = plan.start_loss(run.seed)
    watch = Watch(torch.tensor([start], dtype=torch.float64), plan.forgive)
    order = Order(plan.count, run.batch_size, run.seed)
    for step in range(run.steps):
        for group in optimizer.param_groups:
            group["lr"] = run.lr * plan.factor(step, run.steps)
        optimizer.zero_grad()
        loss = step_losses(bound(select(samples, order.rows(step))), run.batch_size).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if not bool(watch.see(loss.detach()[None])):
            return Record(run, True, step + 1, start, math.inf)
    return ended(plan, run, model, watch, 0)


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


def ended(plan: Plan, run: Run, model: nn.Module, watch: Watch, place: int) -> Record:
    """The record of a run that came to its end, `place` its position in the watch."""
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
    alone = Watch(watch.start[place : place + 1], plan.forgive)
    alone.peak = watch.peak[place : place + 1]
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
