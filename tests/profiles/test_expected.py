"""What a profile will cost, against what it did."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import gradnoise as gn
from gradnoise.profiles.expected import expected_work
from tests.many import regression


def network(count: int) -> tuple[nn.Module, nn.Module, Any]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 30), nn.Tanh(), nn.Linear(30, 5))
    inputs = torch.randn(count, 20)
    return model, nn.CrossEntropyLoss(), (inputs, inputs[:, :5].argmax(1))


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


def test_more_samples_cost_fewer_passes_each() -> None:
    works = [expected_work(n, whole=True, divisible=True).passes(n) for n in (512, 2048, 8192)]
    assert works == sorted(works, reverse=True)


def test_samples_that_cannot_be_taken_apart_cost_more() -> None:
    apart, together = (
        expected_work(2000, whole=True, divisible=own).passes(2000) for own in (True, False)
    )
    assert together > 2 * apart


def test_accuracy_is_paid_for() -> None:
    coarse, fine = (
        expected_work(4000, whole=True, divisible=True, accuracy=a).passes(4000)
        for a in (0.15, 0.05)
    )
    assert fine > coarse


@pytest.mark.parametrize("population", ["dataset", "distribution"])
def test_a_budget_is_kept_by_fewer_samples(population: str) -> None:
    model, criterion, data = network(3000)
    whole = gn.profile(model, criterion, data, population=population)
    assert whole.cost is not None
    for budget in (20.0, 12.0):
        p = gn.profile(model, criterion, data, population=population, budget=budget)
        assert p.cost is not None
        spent = p.cost.passes * p.samples / 3000
        assert 512 <= p.samples == p.cost.samples < 3000
        assert p.warnings[0].startswith(f"`budget` is enough for {p.samples} of 3000 samples")
        assert spent < 1.5 * budget
        assert p.population == whole.population
        assert p.grad_sq_norm.stderr > whole.grad_sq_norm.stderr


def test_a_budget_that_is_enough_changes_nothing() -> None:
    model, criterion, data = network(700)
    assert gn.profile(model, criterion, data, budget=500) == gn.profile(model, criterion, data)


def test_a_budget_is_that_of_the_estimate_too() -> None:
    model, criterion, data = network(3000)
    free, held = (gn.estimate_cost(model, criterion, data, budget=b) for b in (None, 12))
    assert held.passes > free.passes  # over fewer samples


@pytest.mark.parametrize("budget", [0, -3.0, float("nan"), float("inf"), True, "20"])
def test_a_budget_is_a_positive_number(budget: Any) -> None:
    with pytest.raises(gn.ArgumentError, match="`budget` must be a number of plain passes"):
        gn.profile(*regression(), budget=budget)


def test_a_budget_that_is_not_enough_says_what_would_be() -> None:
    with pytest.raises(
        gn.ArgumentError,
        match=r"`budget` = 2 .* 640 samples is not enough: a",
    ):
        gn.profile(*regression(), budget=2)


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


def test_groups_are_named_as_such() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 2))
    data = torch.randn(64, 4), torch.randint(2, (64,))
    with pytest.raises(gn.ArgumentError, match="over 8 groups of samples is not enough"):
        gn.profile(model, nn.CrossEntropyLoss(), data, group_size=8, budget=3)


def test_a_wider_interval_costs_less() -> None:
    model, criterion, data = network(2000)
    cost = gn.estimate_cost(model, criterion, data, accuracy=0.5)
    assert cost.passes < gn.estimate_cost(model, criterion, data).passes
    fine = gn.estimate_cost(model, criterion, data, accuracy=0.05)
    assert fine.half_width > fine.passes
