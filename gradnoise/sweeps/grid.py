"""From the arguments of a sweep to its plan and its runs."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any

import torch
from torch import nn

from ..errors import ArgumentError, check_whole
from ..problem.objective import Objective
from ..problem.state.wrappers import bare_model, bare_optimizer
from ..training.plan import OPTIMIZERS, Plan, collated
from ..training.record import Run
from ..training.schedule import as_schedule
from ..training.start import Start


def make_plan(
    make_model: Any, loss_fn: Any, train_data: Any, test_data: Any, metrics: Any, optimizer: Any,
    momentum: float, weight_decay: float, schedule: Any,
) -> Plan:  # fmt: skip
    """The plan of `gn.sweep`'s arguments, checked."""
    start, optimizer = None, bare_optimizer(optimizer)
    if isinstance(optimizer, torch.optim.Optimizer):
        start = _start(bare_model(make_model), optimizer, momentum, weight_decay)
        make_model, optimizer = start.copy, type(optimizer).__name__
    else:
        _check_settings(make_model, optimizer, momentum)
    if metrics and test_data is None:
        raise ArgumentError("`metrics` are about `test_data`; give some")
    return Plan(
        make_model,
        loss_fn,
        collated(train_data, "train_data"),
        None if test_data is None else collated(test_data, "test_data"),
        dict(metrics or {}),
        optimizer,
        float(momentum),
        float(weight_decay),
        as_schedule(schedule),
        start=start,
    )


def _start(model: Any, optimizer: torch.optim.Optimizer, momentum: float, decay: float) -> Start:
    """Where runs start that go on from a model and its optimizer."""
    if not isinstance(model, nn.Module):
        raise ArgumentError(
            "with a torch optimizer as `optimizer` runs start from the model that it trains: give "
            "the model itself as `make_model`. For fresh models `optimizer` is a name"
        )
    if momentum or decay:
        raise ArgumentError(
            "`momentum` and `weight_decay` are those of the torch optimizer: leave them out"
        )
    found = Start(model, optimizer)
    found.check()
    return found


def _check_settings(make_model: Any, optimizer: Any, momentum: float) -> None:
    if optimizer not in OPTIMIZERS:
        names = ", ".join(OPTIMIZERS)
        raise ArgumentError(f"`optimizer` must be one of {names}; got {optimizer!r}")
    if not 0 <= momentum < 1:
        raise ArgumentError(f"`momentum` must be at least 0 and below 1; got {momentum!r}")
    if optimizer == "nesterov" and not momentum:
        raise ArgumentError("`optimizer` 'nesterov' needs a `momentum` above 0")
    if not callable(make_model) or isinstance(make_model, nn.Module):
        raise ArgumentError(
            "`make_model` must be a function that returns a new model, such as "
            "lambda: nn.Linear(4, 2); a model that exists can be trained only once"
        )
    try:
        inspect.signature(make_model).bind()
    except TypeError as error:
        raise ArgumentError(f"`make_model` is called without arguments ({error})") from error


def first_model(plan: Plan) -> nn.Module:
    """The model of seed 0, checked: trainable, made anew by every call, decided by the seed."""
    opened = Objective(plan.model(0), plan.loss_fn), Objective(plan.model(0), plan.loss_fn)
    first, second = ([p for p in each.parameters.values() if p.numel()] for each in opened)
    if {p.untyped_storage().data_ptr() for p in first} & {
        p.untyped_storage().data_ptr() for p in second
    }:
        raise ArgumentError(
            "`make_model` returned the same weights twice, so that a run would go on from where "
            "the one before ended. Build the model inside of it, or return a copy: "
            "lambda: copy.deepcopy(model)"
        )
    if not all(map(torch.equal, first, second)):
        raise ArgumentError(
            "`make_model` returned other weights when it was called again under the same seed. "
            "Draw them from the global random state of torch, NumPy or Python, which a run sets "
            "to its seed, or from a generator that is made anew inside of it"
        )
    return opened[0].model


def make_grid(
    plan: Plan,
    batch_sizes: Sequence[int],
    lrs: Sequence[float] | Callable[[int], Sequence[float]],
    seeds: list[int],
    epochs: float | None,
    steps: int | None,
) -> list[Run]:
    """Every combination, checked."""
    batch_sizes, seeds = list(batch_sizes), list(seeds)
    rates = {size: list(lrs(size) if callable(lrs) else lrs) for size in batch_sizes}
    _check_grid(plan, batch_sizes, list(rates.values()), seeds)
    if epochs is None and steps is None:
        raise ArgumentError("say how long to train: `epochs`, `steps`, or both")
    if epochs is not None and not 0 < epochs < math.inf:
        raise ArgumentError(f"`epochs` must be a positive number; got {epochs}")
    if steps is not None:
        check_whole("steps", steps, 1)
    budgets: list[tuple[str, int, int]] = []
    for size in sorted(set(batch_sizes)):
        if epochs is not None:
            budgets.append(("epochs", size, max(1, round(epochs * (plan.count // size)))))
        if steps is not None:
            budgets.append(("steps", size, steps))
    return [
        Run(int(size), float(lr), int(seed), budget, int(length))  # whole numbers of NumPy too
        for budget, size, length in sorted(budgets)
        for lr in sorted(set(rates[size]))
        for seed in sorted(set(seeds))
    ]


def _check_grid(
    plan: Plan, batch_sizes: Sequence[int], rates: list[list[float]], seeds: list[int]
) -> None:
    if not (batch_sizes and all(rates) and seeds):
        raise ArgumentError("`batch_sizes`, `lrs` and `seeds` must each hold something")
    for size in batch_sizes:
        check_whole("batch_sizes", size, 1)
    for seed in seeds:
        check_whole("seeds", seed, 0)
    if max(batch_sizes) > plan.count:
        raise ArgumentError(
            f"`batch_sizes` holds {max(batch_sizes)}, and there are {plan.count} samples"
        )
    for lrs in rates:
        if not all(isinstance(lr, Real) and 0 < lr < math.inf for lr in lrs):
            raise ArgumentError(f"`lrs` must be positive numbers; got {lrs}")
