"""How much of the noise of groups is that of grouping."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import gradnoise as gn
from gradnoise.problem.objective import Objective
from gradnoise.problem.options import Options
from gradnoise.problem.partition import effective_population
from gradnoise.problem.problem import Problem
from tests.unit_cases import CE, X, Y, group_loss, mlp


def opened(model: nn.Module, **options: object) -> Problem:
    return Problem.open(model, CE, (X, Y), Options(unit="group", group_size=12, **options))  # type: ignore[arg-type]


def test_uncoupled_losses_have_the_mean_gradient_of_their_samples() -> None:
    """Whatever the groups: |G|² of all groups is exact, and trΣ is not."""
    assert opened(mlp()).samples.population == 8
    groups = gn.gradient_moments(mlp(), CE, (X, Y), unit="group", group_size=12)
    samples = gn.gradient_moments(mlp(), CE, (X, Y))
    assert groups.grad_sq_norm.is_exact
    assert float(groups.grad_sq_norm) == pytest.approx(float(samples.grad_sq_norm), rel=1e-12)
    assert not groups.trace_cov.is_exact
    assert groups.trace_cov.low < float(samples.trace_cov) < groups.trace_cov.high


def test_a_part_of_uncoupled_samples_is_a_part_of_the_groups() -> None:
    assert opened(mlp(), max_samples=48).samples.population == pytest.approx(8, rel=1e-9)
    assert math.isinf(opened(mlp(), population="distribution").samples.population)


def test_coupled_losses_change_with_the_grouping() -> None:
    """Var ḡ by many groupings that are written out: (1 - (1 - s)) / K of a group's variance."""
    model = mlp(nn.BatchNorm1d(5))
    parameters = list(model.parameters())
    means, spreads = [], []
    for seed in range(200):
        order = torch.randperm(96, generator=torch.Generator().manual_seed(seed)).view(8, 12)
        rows = []
        for index in order:
            loss = group_loss(model, CE, (X[index], Y[index]))
            rows.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)]))
        gradients = torch.stack(rows)
        means.append(gradients.mean(0))
        spreads.append(gradients.var(0).sum())
    share = 8 * float(torch.stack(means).var(0).sum()) / float(torch.stack(spreads).mean())
    assert 0.1 < share < 0.9
    found = [1 - 8 / opened(model, seed=seed).samples.population for seed in range(20)]
    assert sum(found) / 20 == pytest.approx(share, rel=0.15)


def test_groups_that_cannot_be_formed_anew_are_taken_as_independent() -> None:
    batches = [(torch.randn(4, 6 * k).double(), torch.zeros(4).long()) for k in (1, 1, 2, 2)]
    loss = lambda m, b: CE(m(b[0][:, :6]), b[1])  # noqa: E731
    problem = Problem.open(mlp(), loss, batches, Options(group_size=2))
    assert problem.samples.is_partition
    assert math.isinf(problem.samples.population)


def test_equal_gradients_have_no_noise_of_grouping() -> None:
    data = (torch.ones(96, 6).double(), torch.zeros(96).long())
    problem = Problem.open(mlp(), CE, data, Options(unit="group", group_size=12))
    plain = Objective(problem.objective.model, CE, problem.unit)
    with plain.guard():
        assert effective_population(plain, problem.samples) == 8
