"""Steps on stacked weights are the steps of torch's optimizers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gradnoise.training.steps import Steps, StepSettings

LRS = (0.1, 0.02)


def gradients(count: int) -> list[list[Tensor]]:
    """A gradient of two parameters for every step and run."""
    source = torch.Generator().manual_seed(0)
    return [[torch.randn(2, 3, generator=source).double() for _ in LRS] for _ in range(count)]


CASES: dict[str, tuple[Any, StepSettings]] = {
    "plain": (lambda p, lr: torch.optim.SGD(p, lr), StepSettings()),
    "decay": (
        lambda p, lr: torch.optim.SGD(p, lr, weight_decay=0.3),
        StepSettings(decay=0.3),
    ),
    "heavy ball": (
        lambda p, lr: torch.optim.SGD(p, lr, momentum=0.9, weight_decay=0.3),
        StepSettings(momentum=0.9, decay=0.3),
    ),
    "Nesterov": (
        lambda p, lr: torch.optim.SGD(p, lr, momentum=0.9, nesterov=True),
        StepSettings("nesterov", momentum=0.9),
    ),
    "Adam": (
        lambda p, lr: torch.optim.Adam(p, lr, betas=(0.8, 0.9), eps=1e-3, weight_decay=0.3),
        StepSettings("adam", momentum=0.8, second=0.9, eps=1e-3, decay=0.3),
    ),
    "AdamW": (
        lambda p, lr: torch.optim.AdamW(p, lr, weight_decay=0.3),
        StepSettings("adam", momentum=0.9, decay=0.3, decoupled=True),
    ),
}
NAMES = {"sgd": ("momentum_buffer",), "nesterov": ("momentum_buffer",),
         "adam": ("exp_avg", "exp_avg_sq")}  # fmt: skip


@pytest.mark.parametrize("before", [0, 4])
@pytest.mark.parametrize("case", CASES)
def test_they_move_weights_as_torch_does(case: str, before: int) -> None:
    """From no buffers, and from those of four steps."""
    make, settings = CASES[case]
    torch.manual_seed(0)
    own = [nn.Parameter(torch.randn(2, 3).double()) for _ in LRS]
    optimizers = [make([p], lr) for p, lr in zip(own, LRS, strict=True)]
    several = gradients(before + 5)
    for both in several[:before]:
        for p, step, gradient in zip(own, optimizers, both, strict=True):
            p.grad = gradient
            step.step()
    memory: dict[str, dict[str, Tensor]] = {"first": {}, "second": {}}
    for kind, name in zip(memory, NAMES[settings.kind], strict=False):
        if before and settings.momentum:
            states = [step.state[p][name] for p, step in zip(own, optimizers, strict=True)]
            memory[kind]["w"] = torch.stack(states).clone()
    weights = {"w": torch.stack([p.detach() for p in own])}
    steps = Steps({"w": replace(settings, taken=before)}, memory)
    for count, both in enumerate(several[before:]):
        for p, step, gradient in zip(own, optimizers, both, strict=True):
            p.grad = gradient
            step.step()
        steps.move(weights, {"w": torch.stack(both)}, torch.tensor(LRS, dtype=torch.float64), count)
        for row, p in zip(weights["w"], own, strict=True):
            torch.testing.assert_close(row, p.detach(), rtol=1e-12, atol=1e-12)


def test_a_parameter_has_its_own_pace() -> None:
    weights = {"slow": torch.ones(2, 1).double(), "fast": torch.ones(2, 1).double()}
    steps = Steps({"slow": StepSettings(), "fast": StepSettings(pace=3.0)})
    ones = {name: torch.ones(2, 1).double() for name in weights}
    steps.move(weights, ones, torch.tensor([0.1, 0.2], dtype=torch.float64), 0)
    assert weights["slow"].flatten().tolist() == pytest.approx([0.9, 0.8])
    assert weights["fast"].flatten().tolist() == pytest.approx([0.7, 0.4])


def test_a_parameter_without_a_gradient_stays() -> None:
    """Neither a step nor weight decay, as torch does where .grad is None."""
    weights = {"used": torch.ones(1, 1), "unused": torch.ones(1, 1)}
    steps = Steps(dict.fromkeys(weights, StepSettings(momentum=0.9, decay=0.5)))
    steps.move(weights, {"used": torch.ones(1, 1)}, torch.tensor([0.1]), 0)
    assert float(weights["unused"]) == 1.0
    assert float(weights["used"]) == pytest.approx(1 - 0.1 * 1.5)


def test_runs_that_leave_take_their_buffers_along() -> None:
    buffers = {"first": {"w": torch.arange(6.0).reshape(3, 2)}, "second": {}}
    steps = Steps({"w": StepSettings(momentum=0.5)}, buffers)
    steps.keep(torch.tensor([True, False, True]))
    assert steps.memory["first"]["w"].tolist() == [[0.0, 1.0], [4.0, 5.0]]
