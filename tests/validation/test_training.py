"""Checks of the limits and laws of training: all hold, and a wrong formula fails them."""

from __future__ import annotations

import pytest
import torch

import gradnoise as gn
from gradnoise.validation import training
from tests.validating import Group, assert_all_hold


@pytest.mark.parametrize("group", [training.limits, training.rules, training.laws])
def test_every_check_of_another_seed_holds(group: Group) -> None:
    assert_all_hold(group, 2)


def test_simulated_runs_of_another_average_fail_it(monkeypatch: pytest.MonkeyPatch) -> None:
    toy = gn.toy.NoisyQuadraticModel(torch.ones(6))
    assert training.simulated(toy, "sgd", 0.0, seed=0).holds
    other = gn.toy.NoisyQuadraticModel(torch.ones(6), 1.1 * toy.spectrum).dynamics()
    monkeypatch.setattr(toy, "dynamics", lambda: other)
    check = training.simulated(toy, "sgd", 0.0, seed=0)
    assert not check.holds
    assert abs(check.z) > 4.4


def test_samples_and_spread_belong_together() -> None:
    toy, spread = training.finite(2)
    assert spread.directions == 3
    mean = torch.tensor(spread.mean, dtype=torch.float64)
    torch.testing.assert_close(mean, toy.dynamics().hessian)
