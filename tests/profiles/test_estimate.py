"""What a profile will cost, against what it did."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import gradnoise as gn
from tests.networks import network


@pytest.mark.parametrize("population", ["dataset", "distribution"])
@pytest.mark.parametrize("count", [100, 300, 600, 1500])
def test_passes_are_about_what_they_will_be(count: int, population: str) -> None:
    model, criterion, data = network(count)
    expected = gn.estimate_cost(model, criterion, data, population=population)
    cost = gn.profile(model, criterion, data, population=population).cost
    assert cost is not None
    assert cost.passes / 1.8 < expected.passes < 1.8 * cost.passes
    assert cost.products / 2 < expected.products < 2 * cost.products
    assert expected.half_width > expected.passes
    assert 0 < expected.seconds < 60
    assert expected.peak_bytes > 0


@pytest.mark.parametrize("unit", ["auto", "group"])
def test_the_model_is_left_as_found(unit: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.2), nn.Linear(6, 2))
    data = torch.randn(600, 4), torch.randint(2, (600,))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    gn.estimate_cost(model, nn.CrossEntropyLoss(), data, unit=unit)
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("accuracy", [0.02, 0.005, 0.0])
def test_high_accuracy_is_by_full_probes(accuracy: float) -> None:
    model, criterion, data = network(700)
    expected = gn.estimate_cost(model, criterion, data, accuracy=accuracy)
    cost = gn.profile(model, criterion, data, accuracy=accuracy).cost
    assert cost is not None
    assert cost.passes / 2 < expected.passes < 2 * cost.passes


def test_an_estimate_refuses_what_a_profile_refuses() -> None:
    with pytest.raises(gn.ArgumentError, match="`accuracy` is a relative error"):
        gn.estimate_cost(*network(100), accuracy=-1.0)


def test_a_wider_interval_costs_less() -> None:
    model, criterion, data = network(2000)
    cost = gn.estimate_cost(model, criterion, data, accuracy=0.5)
    assert cost.passes < gn.estimate_cost(model, criterion, data).passes
    fine = gn.estimate_cost(model, criterion, data, accuracy=0.05)
    assert fine.half_width > fine.passes
