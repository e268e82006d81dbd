"""Budgets, against what profiles spend."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import gradnoise as gn
from tests.many import regression
from tests.networks import network


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


def test_groups_are_named_as_such() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 2))
    data = torch.randn(64, 4), torch.randint(2, (64,))
    with pytest.raises(gn.ArgumentError, match="over 8 groups of samples is not enough"):
        gn.profile(model, nn.CrossEntropyLoss(), data, group_size=8, budget=3)
