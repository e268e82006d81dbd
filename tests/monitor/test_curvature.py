"""λ along the run: that of the tracker, at its turns, and one note where there is none."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gradnoise.monitor.curvature import Curvature, _metric_factor
from gradnoise.problem.optimizer_settings import read_optimizer
from gradnoise.problem.preconditioner import Preconditioner


def least_squares() -> tuple[nn.Module, tuple[Tensor, Tensor]]:
    inputs = torch.randn(40, 3).double()
    return nn.Linear(3, 1, bias=False).double(), (inputs, torch.randn(40, 1).double())


def test_it_is_the_top_eigenvalue_at_every_turn() -> None:
    model, data = least_squares()
    own = Curvature(model, nn.MSELoss(), data, every=3)
    assert math.isnan(own.value)
    exact = float(torch.linalg.eigvalsh(2 * data[0].T @ data[0] / 40)[-1])
    found = []
    for _ in range(7):
        own.turn()
        found.append(own.value)
    assert found == pytest.approx([exact] * 7, rel=1e-2)
    assert own._tracker is not None
    assert len(own._tracker.history) == 3


def test_what_cannot_be_measured_is_said_and_not_tried_again() -> None:
    model, data = least_squares()
    calls = []

    def one_number(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        calls.append(1)
        return model(batch[0]).sum(0)[:1].repeat(2)

    own = Curvature(model, one_number, data, every=1)
    own.turn()
    assert own.reason.startswith("the sharpness cannot be measured: ")
    assert math.isnan(own.value)
    before = len(calls)
    own.turn()
    assert len(calls) == before


def test_an_error_of_another_library_does_not_stop_the_training() -> None:
    model, data = least_squares()

    def full(*_: object) -> Tensor:
        raise RuntimeError("out of memory")

    own = Curvature(model, full, data, every=1)
    own.turn()
    assert own.reason == "the sharpness cannot be measured: RuntimeError: out of memory"


def test_an_adaptive_metric_is_waited_for() -> None:
    """Second moments of the first steps are no metric that anybody trains with."""
    model, (inputs, targets) = least_squares()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3, betas=(0.9, 0.9))
    settled = read_optimizer(optimizer).settled_after
    own = Curvature(model, nn.MSELoss(), (inputs, targets), every=2)
    fresh = []
    for _ in range(settled + 4):
        fresh.append("sharpness" in own.turn(optimizer))
        optimizer.zero_grad()
        nn.functional.mse_loss(model(inputs), targets).backward()
        optimizer.step()
    assert settled == 100
    assert not any(fresh[:settled])
    assert fresh[settled:] == [True, False, True, False]


def trained(kind: type[torch.optim.Optimizer], steps: int, **options: Any) -> dict[str, float]:
    """What is told after so many steps; `.grad` is there."""
    torch.manual_seed(0)
    model, (inputs, targets) = least_squares()
    optimizer = kind(model.parameters(), lr=1e-3, **options)
    own = Curvature(model, nn.MSELoss(), (inputs, targets), every=1)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.mse_loss(model(inputs), targets).backward()
        optimizer.step()
    found = own.turn(optimizer)
    assert not own.reason
    if found.get("metric_factor", 1.0) != 1:
        root = Preconditioner.of(optimizer, dict(model.named_parameters())).root["weight"]
        gradient = model.weight.grad
        noise = gradient - optimizer.state[model.weight].get("exp_avg", 0)
        exact = float((root * noise).square().sum() / noise.square().sum())
        assert found["metric_factor"] == pytest.approx(exact)
    return found


def test_what_goes_with_it_is_that_of_the_optimizer() -> None:
    found = trained(torch.optim.SGD, 3, momentum=0.5)
    assert found == {
        "sharpness": found["sharpness"], "momentum": 0.5, "metric_factor": 1.0,
        "stable_lr": 3 / found["sharpness"],
    }  # fmt: skip
    model, data = least_squares()
    assert set(Curvature(model, nn.MSELoss(), data, every=1).turn()) == {"sharpness"}


def test_an_adaptive_metric_tells_of_its_noise_and_later_of_its_limit() -> None:
    early = trained(torch.optim.AdamW, 150)
    assert set(early) == {"sharpness", "momentum", "metric_factor"}  # 1/(1 - β₂) = 1000 steps
    late = trained(torch.optim.AdamW, 150, betas=(0.9, 0.99))
    assert late["stable_lr"] == pytest.approx(2 * 1.9 / (0.1 * late["sharpness"]))


def test_of_an_optimizer_that_is_not_known_there_is_sharpness_alone() -> None:
    class Sign(torch.optim.Optimizer):
        def __init__(self, params: Any, lr: float) -> None:
            super().__init__(params, {"lr": lr})

        def step(self, closure: Any = None) -> None:
            pass

    assert set(trained(Sign, 1)) == {"sharpness"}
    assert set(trained(torch.optim.SGD, 1, momentum=0.9, dampening=0.5)) == {"sharpness"}


def test_a_gradient_of_zero_has_no_factor() -> None:
    model, _ = least_squares()
    optimizer = torch.optim.Adam(model.parameters())
    model.weight.grad = torch.ones_like(model.weight)
    optimizer.step()
    model.weight.grad = optimizer.state[model.weight]["exp_avg"].clone()
    assert math.isnan(_metric_factor(optimizer, dict(model.named_parameters())))
    model.weight.grad = None
    assert math.isnan(_metric_factor(optimizer, dict(model.named_parameters())))


def test_optimizers_whose_state_comes_with_the_first_step_are_waited_for() -> None:
    for kind in (torch.optim.Adagrad, torch.optim.Adafactor, torch.optim.RMSprop):
        assert trained(kind, 0) == {}
        assert "metric_factor" in trained(kind, 101)


def test_several_learning_rates_of_sgd_are_not_one() -> None:
    model, data = least_squares()
    groups = [{"params": [model.weight], "lr": 0.1}, {"params": [torch.zeros(1)], "lr": 0.2}]
    assert set(Curvature(model, nn.MSELoss(), data, every=1).turn(torch.optim.SGD(groups))) == {
        "sharpness"
    }


def test_what_cannot_be_measured_is_told_before_the_metric_is_there() -> None:
    model, data = least_squares()

    def full(*_: object) -> Tensor:
        raise RuntimeError("out of memory")

    own = Curvature(model, full, data, every=1)
    assert own.turn(torch.optim.Adam(model.parameters())) == {}
    assert own.reason.startswith("the sharpness cannot be measured: ")
