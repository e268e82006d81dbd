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
    """K times the variance of the mean by many groupings over that of a group, written out."""
    model, count = mlp(nn.BatchNorm1d(5)), 384
    source = torch.Generator().manual_seed(2)
    x = torch.randn(count, 6, generator=source).double()
    y = torch.randint(3, (count,), generator=source)
    parameters = list(model.parameters())
    means, spreads = [], []
    for seed in range(150):
        order = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).view(32, 12)
        rows = []
        for index in order:
            loss = group_loss(model, CE, (x[index], y[index]))
            flat = [g.flatten() for g in torch.autograd.grad(loss, parameters)]
            rows.append(torch.cat([*flat, loss.detach()[None]]))
        found = torch.stack(rows)
        means.append(found.mean(0))
        spreads.append(found.var(0))
    changes, spread = torch.stack(means).var(0), torch.stack(spreads).mean(0)
    options = {"unit": "group", "group_size": 12}
    samples = [
        Problem.open(model, CE, (x, y), Options(seed=seed, **options)).samples  # type: ignore[arg-type]
        for seed in range(16)
    ]
    of_gradients = sum(1 - 32 / own.population for own in samples) / 16
    of_losses = sum(1 - 32 / (own.loss_population or 0) for own in samples) / 16
    truth = 32 * float(changes[:-1].sum() / spread[:-1].sum())
    assert of_gradients == pytest.approx(truth, rel=0.2)
    assert of_losses == pytest.approx(32 * float(changes[-1] / spread[-1]), rel=0.4)
    moments = gn.gradient_moments(model, CE, (x, y), **options)  # type: ignore[arg-type]
    factor = 1 / 32 - 1 / (samples[0].loss_population or 0)
    assert moments.loss.stderr == pytest.approx((factor * float(moments.losses.var())) ** 0.5)


def test_groups_that_cannot_be_formed_anew_are_taken_as_independent() -> None:
    batches = [(torch.randn(4, 6 * k).double(), torch.zeros(4).long()) for k in (1, 2, 1, 2)]
    loss = lambda m, b: CE(m(b[0][:, :6]), b[1])  # noqa: E731
    problem = Problem.open(mlp(), loss, batches, Options(group_size=2))
    assert problem.samples.is_partition
    assert math.isinf(problem.samples.population)


def test_equal_gradients_have_no_noise_of_grouping() -> None:
    data = (torch.ones(96, 6).double(), torch.zeros(96).long())
    problem = Problem.open(mlp(), CE, data, Options(unit="group", group_size=12))
    plain = Objective(problem.objective.model, CE, problem.unit)
    with plain.guard():
        assert effective_population(plain, problem.samples) == (8, 8)
