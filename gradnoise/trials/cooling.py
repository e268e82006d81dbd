"""`gn.cooled`: a copy of the model after a few steps with a learning rate that falls to zero."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ..errors import ArgumentError, ModelError, check_whole
from ..problem.losses.loss_fn import LossFn
from ..problem.objective import Objective
from ..problem.state.guard import seed_everything, untouched
from ..problem.state.wrappers import bare_model, bare_optimizer
from ..tensors.trees import Batch, sample_count, select, to_device
from ..training.batch_order import BatchOrder
from ..training.plan import collated
from ..training.start import Start
from .trials import known_batch_size


def cooled(
    model: nn.Module,
    loss_fn: LossFn | nn.Module,
    data: Any,
    optimizer: torch.optim.Optimizer,
    *,
    steps: int = 20,
    batch_size: int | None = None,
    seed: int = 0,
) -> nn.Module:
    """The model after `steps` steps with a learning rate that falls to zero; nothing is changed.

    In training at a large learning rate the weights swing along the sharp directions, and much of
    |G|² is this swing. When the rate falls, ε_t = ε(1 - t/steps) for t = 0, 1, ..., the swing dies
    out and the weights hardly move otherwise: gradients of the copy are without it (`gn.swing`).

    Model and optimizer are copied and the copies trained, so memory holds both twice. The cost is
    `steps` forward and backward passes over a batch.

    Args:
        model: any `nn.Module` that `copy.deepcopy` can copy; its modes (train, eval) are kept.
        loss_fn: as for `gn.profile`; it must use the model that it is given.
        data: as for `gn.profile`; batches of tensors must have samples of equal shapes.
        optimizer: the one that trains the model: any torch optimizer, with its state.
        steps: how many.
        batch_size: B in samples; None takes that of a DataLoader.
        seed: of the order of the samples and of dropout.

    Returns:
        The trained copy.

    Raises:
        ArgumentError: an option out of range, no batch size, an optimizer of other parameters,
            without a positive learning rate, or that needs a closure.
        ModelError: the model cannot be copied, or the loss does not depend on the copy.
        GradNoiseError: see `gn.gradient_moments`.

    Example:
        >>> data = (torch.ones(4, 1), torch.tensor([[0.0], [2.0], [0.0], [2.0]]))
        >>> model = nn.Linear(1, 1, bias=False)
        >>> sgd = torch.optim.SGD(model.parameters(), lr=0.4)
        >>> round(cooled(model, nn.MSELoss(), data, sgd, batch_size=4).weight.item(), 4)  # minimum
        1.0
    """
    check_whole("steps", steps, 1)
    check_whole("seed", seed, 0)
    size = known_batch_size(data, batch_size)
    with untouched(model, data):
        samples = collated(data, "data", max(2, steps * size))
        count = sample_count(samples)
        if size > count:
            raise ArgumentError(f"`batch_size` = {size} is more than the {count} samples of `data`")
        trained, own = copied(model, optimizer)
        objective, order = Objective(trained, loss_fn), BatchOrder(count, size, seed)
        rates = [group["lr"] for group in own.param_groups]
        seed_everything(seed)
        for step in range(steps):
            for group, rate in zip(own.param_groups, rates, strict=True):
                group["lr"] = rate * (1 - step / steps)
            batch = to_device(select(samples, order.rows(step)), objective.device)
            _take_step(objective, own, batch)
    trained.zero_grad(set_to_none=True)
    return trained


def copied(
    model: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[nn.Module, torch.optim.Optimizer]:
    """Copies of both, the optimizer with its state and with the copied parameters.

    Raises:
        ArgumentError: not a torch optimizer of this model's parameters, one without a learning
            rate, or one that needs a closure.
        ModelError: the model cannot be copied.
    """
    model, optimizer = bare_model(model), bare_optimizer(optimizer)
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise ArgumentError(
            f"`optimizer` must be a torch.optim.Optimizer; got {type(optimizer).__name__}"
        )
    own = {id(parameter) for parameter in model.parameters()}
    if not all(id(p) in own for group in optimizer.param_groups for p in group["params"]):
        raise ArgumentError(
            "`optimizer` holds parameters that are not of `model`; pass the optimizer that trains "
            "this very model"
        )
    start = Start(model, optimizer)
    start.check()
    trained = start.copy()
    return trained, start.optimizer_of(trained)


def _take_step(objective: Objective, optimizer: torch.optim.Optimizer, batch: Batch) -> None:
    optimizer.zero_grad()
    loss = objective.losses(batch).mean()
    if loss.requires_grad:
        loss.backward()  # type: ignore[no-untyped-call]
    if all(p.grad is None for p in objective.parameters.values()):
        raise ModelError(
            "the loss does not depend on the copy of the model that is trained here: `loss_fn` "
            "uses another model than the one that it is given. Use its argument"
        )
    optimizer.step()
