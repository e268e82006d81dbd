"""λ along the run: that of the tracker, at its turns, and one note where there is none."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from gradnoise.monitor.curvature import Curvature
from gradnoise.problem.optimizer_settings import read_optimizer


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
        own.turn(optimizer)
        fresh.append(own.is_fresh)
        optimizer.zero_grad()
        nn.functional.mse_loss(model(inputs), targets).backward()
        optimizer.step()
    assert not any(fresh[:settled])
    assert fresh[settled:] == [True, False, True, False]
