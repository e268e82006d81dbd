"""Models in the middle of training, each with its optimizer and what that has kept."""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import gradnoise as gn
from gradnoise.training.plan import Plan
from gradnoise.training.record import Record, Run
from gradnoise.training.start import Start
from tests.small_runs import DATA, small

CE = nn.CrossEntropyLoss()
Make = Callable[[nn.Module], torch.optim.Optimizer]


def in_groups(model: nn.Module) -> list[dict[str, Any]]:
    """The first layer at its own rate and decay."""
    first, *others = list(model.children())
    rest = [p for other in others for p in other.parameters()]
    return [{"params": rest}, {"params": first.parameters(), "lr": 0.02, "weight_decay": 0.2}]


STACKED: dict[str, Make] = {
    "SGD": lambda m: torch.optim.SGD(m.parameters(), 0.05),
    "momentum": lambda m: torch.optim.SGD(m.parameters(), 0.05, momentum=0.9),
    "Nesterov": lambda m: torch.optim.SGD(
        m.parameters(), 0.05, momentum=0.8, nesterov=True, weight_decay=0.1
    ),
    "Adam": lambda m: torch.optim.Adam(m.parameters(), 0.01, betas=(0.8, 0.95), weight_decay=0.1),
    "AdamW": lambda m: torch.optim.AdamW(m.parameters(), 0.01, eps=1e-4, weight_decay=0.5),
    "SGD in groups": lambda m: torch.optim.SGD(in_groups(m), 0.05, momentum=0.9, weight_decay=0.01),
    "AdamW in groups": lambda m: torch.optim.AdamW(in_groups(m), 0.01, weight_decay=0.3),
}


class Own(torch.optim.Optimizer):
    """A user's: sign descent with an attribute beside torch's and a count beside the state."""

    def __init__(self, parameters: Any, lr: float) -> None:
        super().__init__(parameters, {"lr": lr})
        self.power, self.taken = 1.0, []

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        self.taken.append(len(self.taken))
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p -= group["lr"] * p.grad.sign() * p.grad.abs() ** self.power


ALONE: dict[str, Make] = {
    "RMSprop": lambda m: torch.optim.RMSprop(m.parameters(), 0.01, momentum=0.5),
    "Adagrad": lambda m: torch.optim.Adagrad(m.parameters(), 0.05),
    "a user's": lambda m: Own(m.parameters(), 0.05),
    "amsgrad": lambda m: torch.optim.Adam(m.parameters(), 0.01, amsgrad=True),
    "dampening": lambda m: torch.optim.SGD(m.parameters(), 0.05, momentum=0.9, dampening=0.1),
}


def trained(
    make: Make = STACKED["momentum"], model: nn.Module | None = None, steps: int = 3,
    loss_fn: Any = CE, data: Any = DATA,
) -> tuple[nn.Module, torch.optim.Optimizer]:  # fmt: skip
    """A model after some steps of its optimizer, gradients left on it."""
    if model is None:
        with torch.random.fork_rng():
            torch.manual_seed(3)
            model = small()
    optimizer = make(model)
    for _ in range(steps):
        optimizer.zero_grad()
        loss_fn(model(data[0]), data[1]).backward()
        optimizer.step()
    return model, optimizer


def plan_at(
    model: nn.Module, optimizer: torch.optim.Optimizer, loss_fn: Any = CE, data: Any = DATA,
    **settings: Any,
) -> Plan:  # fmt: skip
    """Runs that start there."""
    start = Start(model, optimizer)
    return Plan(start.copy, loss_fn, data, start=start, averages=True, **settings)


def by_hand(
    model: nn.Module, optimizer: torch.optim.Optimizer, lr: float, batches: list[Tensor],
    max_grad_norm: float | None = None, falls: bool = False,
) -> tuple[nn.Module, nn.Module]:  # fmt: skip
    """A plain loop with copies of both: the last weights, and the mean of the last half.

    `falls`: whether the rate falls to zero on a line.
    """
    own, step = copy.deepcopy((model, optimizer))
    for name in vars(optimizer).keys() - vars(step).keys():  # torch's copy leaves them out
        setattr(step, name, copy.deepcopy(getattr(optimizer, name)))
    first = [group["lr"] * lr / step.param_groups[0]["lr"] for group in step.param_groups]
    kept = []
    for place, rows in enumerate(batches):
        left = 1 - place / len(batches) if falls else 1.0
        for group, own_lr in zip(step.param_groups, first, strict=True):
            group["lr"] = own_lr * left
        step.zero_grad()
        CE(own(DATA[0][rows]), DATA[1][rows]).backward()
        if max_grad_norm is not None:
            nn.utils.clip_grad_norm_(own.parameters(), max_grad_norm)
        step.step()
        kept.append([p.detach().clone() for p in own.parameters()])
    mean = copy.deepcopy(own)
    last = kept[len(kept) // 2 :]
    with torch.no_grad():
        for place, p in enumerate(mean.parameters()):
            p.copy_(torch.stack([weights[place] for weights in last]).mean(0))
    return own, mean


def runs_of(lrs: tuple[float, ...] = (0.01, 0.1), seeds: int = 2, steps: int = 10) -> list[Run]:
    return [Run(4, lr, seed, "samples", steps) for lr in lrs for seed in range(seeds)]


def numbers(record: Record) -> list[float]:
    """The losses of a record."""
    late, averaged = record.late_loss, record.averaged_loss
    return [record.start_loss, record.train_loss, late, averaged]  # type: ignore[list-item]


def state_of(model: nn.Module, optimizer: torch.optim.Optimizer, data: Any = None) -> Any:
    """Everything that must be as it was found, as plain values."""
    sources = [getattr(data, "generator", None)]
    return (
        [(n, p.tolist(), p.requires_grad, id(p)) for n, p in model.named_parameters()],
        [None if p.grad is None else (id(p.grad), p.grad.tolist()) for p in model.parameters()],
        [(n, b.tolist(), id(b)) for n, b in model.named_buffers()],
        [module.training for module in model.modules()],
        repr(optimizer.state_dict()),
        [id(p) for group in optimizer.param_groups for p in group["params"]],
        sorted(vars(optimizer)),
        torch.get_rng_state().tolist(),
        np.random.get_state()[1].tolist(),
        random.getstate(),
        [None if g is None else g.get_state().tolist() for g in sources],
        torch.is_grad_enabled(),
    )


FEW: dict[str, Any] = {"batch_size": 4, "batch_sizes": [2, 8], "samples": 32, "seeds": 2,
                       "further": 1}  # fmt: skip


def branched(
    make: Make = STACKED["momentum"], model: nn.Module | None = None, loss_fn: Any = CE,
    data: Any = DATA, **options: Any,
) -> gn.Branches:  # fmt: skip
    """A few short runs from a trained model."""
    own, optimizer = trained(make, model)
    return gn.branch(own, loss_fn, data, optimizer, **{**FEW, **options})


def ended(
    size: int, lr: float, losses: tuple[float, ...], averaged: tuple[float, ...] = (),
    budget: str = "samples", samples: int = 64,
) -> list[Record]:  # fmt: skip
    """Runs that end at these losses by seed, from 1; infinite ones have diverged."""
    return [
        Record(
            Run(size, lr, seed, budget, samples // size), loss == math.inf, None, 1.0, loss,
            averaged_loss=None if loss == math.inf else (averaged or losses)[seed],
            late_loss=None if loss == math.inf else loss,
        )
        for seed, loss in enumerate(losses)
    ]  # fmt: skip


def made_branches(**changes: Any) -> gn.Branches:
    """Three batch sizes whose losses are known: 4 is best, 16 needs twice the samples."""
    records = [
        *ended(4, 0.1, (0.30, 0.32), (0.20, 0.22)),
        *ended(4, 0.2, (0.40, 0.42), (0.18, 0.20)),
        *ended(4, 0.4, (math.inf, 0.5)),
        *ended(16, 0.2, (0.34, 0.36), (0.30, 0.32)),
        *ended(16, 0.4, (0.36, 0.40), (0.34, 0.36)),
        *ended(64, 0.4, (0.80, 0.82), (0.90, 0.92)),
    ]
    parts = [
        *ended(4, 0.2, (0.33, 0.37), (0.28, 0.34), "1/2 of the samples", 32),
        *ended(4, 0.2, (0.6, 0.6), (0.6, 0.62), "1/4 of the samples", 16),
    ]
    given = {"parts": tuple(parts), "lr": 0.1, "batch_size": 4, "tolerance": 0.1, **changes}
    return gn.Branches(tuple(records), {}, **given)


class KilledError(Exception):
    """In the middle of training."""


class CutOff:
    """Cross-entropy that raises once gradients were taken so often."""

    def __init__(self, error: type[BaseException] | None, calls: int) -> None:
        self.error, self.most, self.calls = error, calls, 0

    def __call__(self, model: nn.Module, batch: Any) -> Tensor:
        self.calls += torch.is_grad_enabled()
        if self.error is not None and self.calls > self.most:
            raise self.error
        return nn.functional.cross_entropy(model(batch[0]), batch[1], reduction="none")
