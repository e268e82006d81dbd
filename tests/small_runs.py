"""Small trainings: models, a data set, losses, and a sweep over four cells."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gradnoise as gn
from gradnoise.sweeps.grid import make_plan
from gradnoise.training.checkpoint import Checkpoint
from gradnoise.training.plan import Plan
from gradnoise.training.record import Record, Run

INPUTS = torch.randn(40, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
LABELS = (INPUTS[:, 0] + 0.5 * INPUTS[:, 1] > 0).long()
DATA, TEST = (INPUTS[:32], LABELS[:32]), (INPUTS[32:], LABELS[32:])
NOWHERE = Checkpoint(None, "", ())  # keeps nothing


def small() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 2)).double()


def normalised() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.Linear(6, 2)).double()


def dropping() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 60), nn.Dropout(0.5), nn.Linear(60, 2)).double()


def half_frozen() -> nn.Module:
    model = small()
    model[0].requires_grad_(False)
    return model


def zeros() -> nn.Module:
    model = nn.Linear(5, 2).double()
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    return model


def penalised(coefficient: float, seen: bool = True) -> Callable[[nn.Module, Any], Tensor]:
    """Cross-entropy with a penalty, whose value shows or not."""

    def loss_fn(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        losses = nn.functional.cross_entropy(model(batch[0]), batch[1], reduction="none")
        penalty = coefficient * sum((p * p).sum() for p in model.parameters())
        return losses + penalty - (0.0 if seen else penalty.detach())

    return loss_fn


def accuracy(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return (model(batch[0]).argmax(-1) == batch[1]).double()


def halved(fraction: float) -> float:
    return 1.0 if fraction < 0.5 else 0.5


def plan_of(
    model: Any = small,
    optimizer: str = "sgd",
    momentum: float = 0.0,
    decay: float = 0.0,
    schedule: Any = halved,
) -> Plan:
    return make_plan(
        model, nn.CrossEntropyLoss(), DATA, TEST, {"accuracy": accuracy}, optimizer, momentum,
        decay, schedule,
    )  # fmt: skip


def swept(model: Any = small, loss_fn: Any = None, **options: Any) -> gn.Sweep:
    chosen = {"batch_sizes": [4, 8], "lrs": [0.1, 0.4], "epochs": 2, "seeds": 2, **options}
    return gn.sweep(model, loss_fn or nn.CrossEntropyLoss(), DATA, **chosen)


COUNTED: list[int] = []  # passes over all samples without a gradient


def counted(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    if len(batch[0]) == 32 and not torch.is_grad_enabled():
        COUNTED.append(32)
    return nn.functional.cross_entropy(model(batch[0]), batch[1], reduction="none")


def made(losses: tuple[float, ...], sizes: tuple[int, ...]) -> gn.Sweep:
    """Runs that end at these losses by learning rate, and diverge at one more."""
    records = [
        Record(Run(size, 0.1 * 2**k, 0, "steps", 9), loss == math.inf, None, 1.0, loss)
        for size in sizes
        for k, loss in enumerate((*losses, math.inf))
    ]
    return gn.Sweep(tuple(records), {})


@pytest.fixture(autouse=True, scope="module")
def one_program_is_faster() -> Iterator[None]:
    """Whatever the clock says, unless a test says not."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gradnoise.training.vectorise.seconds_per_step", lambda *_: (1.0, 2.0))
        yield


@pytest.fixture(scope="module")
def found() -> gn.Sweep:
    """Four cells of two runs each, none of which diverges."""
    return replace(swept(), settings={})
