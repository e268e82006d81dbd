"""A small problem whose losses are counted, and results compared to the last digit."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gradnoise.problem.objective import Objective

SAMPLES = 40


class BugError(RuntimeError):
    """Of the user's own code."""


class Counted:
    """Per-sample cross-entropy that counts the samples it is evaluated on.

    Args:
        fails_from: the evaluation from which on it raises.
    """

    def __init__(self, fails_from: float = float("inf")) -> None:
        self.samples = self.calls = 0
        self.fails_from = fails_from

    def __call__(self, model: nn.Module, batch: Any) -> Tensor:
        self.calls += 1
        if self.calls >= self.fails_from:
            raise BugError("a bug in my loss_fn")
        self.samples += len(batch[1])
        return F.cross_entropy(model(batch[0]), batch[1], reduction="none")

    def of(self, call: Any) -> int:
        """Samples evaluated by a call."""
        before = self.samples
        call()
        return self.samples - before


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Samples of every evaluation of losses from here on."""
    counts, plain = list[int](), Objective.losses

    def losses(self: Objective, batch: Any, *more: Any) -> Tensor:
        counts.append(len(batch[1]))
        return plain(self, batch, *more)

    monkeypatch.setattr(Objective, "losses", losses)
    return counts


def small_model() -> nn.Module:
    """With a buffer that its output depends on."""
    torch.manual_seed(1)
    layers = nn.Linear(4, 5), nn.BatchNorm1d(5).eval(), nn.Tanh(), nn.Linear(5, 3)
    return nn.Sequential(*layers).double()


def small_data(count: int = SAMPLES) -> tuple[Tensor, Tensor]:
    source = torch.Generator().manual_seed(2)
    inputs = torch.randn(count, 4, generator=source, dtype=torch.float64)
    return inputs, torch.randint(3, (count,), generator=source)


def adam_after_steps(model: nn.Module, steps: int = 3) -> torch.optim.Optimizer:
    """Adam that has a state."""
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    inputs, labels = small_data()
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(model(inputs), labels).backward()
        optimizer.step()
    optimizer.zero_grad()
    return optimizer


def written_out(result: Any) -> Any:
    """A result as text and nested lists, in which every bit of every number shows."""
    if isinstance(result, Tensor):
        return f"{result.dtype} {result.tolist()}"  # nan equals nan
    if dataclasses.is_dataclass(result):
        return {f.name: written_out(getattr(result, f.name)) for f in dataclasses.fields(result)}
    if isinstance(result, dict):
        return {name: written_out(item) for name, item in result.items()}
    if isinstance(result, (list, tuple)):
        return [written_out(item) for item in result]
    return repr(result)
