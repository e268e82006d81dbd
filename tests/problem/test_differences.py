"""Curvatures by differences of slopes are those of second derivatives."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gradnoise as gn
from gradnoise.operators.gradients import PerSampleGradients
from gradnoise.problem.differences import differences, step_length
from gradnoise.problem.directional import (
    curvatures_of_each,
    per_sample_curvatures,
    weighted_product,
)
from gradnoise.problem.options import Options
from gradnoise.problem.problem import Problem
from tests import oracles
from tests.cases import CASES, labelled, mlp


def slopes(problem: Problem, block: Tensor) -> Tensor:
    return PerSampleGradients.of(problem, engine="loop").along(block)


def test_products_and_curvatures_of_samples_are_right() -> None:
    model, loss_fn, batch = CASES[0].build()
    truth = oracles.dense(model, loss_fn, batch)
    before = [p.detach().clone() for p in model.parameters()]
    options = Options(micro_batch=4)
    problem = replace(Problem.open(model, loss_fn, batch, options), slopes=slopes)
    u, v, w = torch.randn(3, truth.hessian.shape[0], dtype=torch.float64)
    for scale in (1e-20, 1.0, 1e20):
        (found, alone) = curvatures_of_each(problem, [(scale * u, [v, w]), (v, [])])
        torch.testing.assert_close(found.product / scale, truth.hessian @ u, rtol=1e-7, atol=1e-8)
        for column, other in zip(found.values.T, (v, w), strict=True):
            expected = truth.hessians @ u @ other
            torch.testing.assert_close(column / scale, expected, rtol=1e-7, atol=1e-8)
    torch.testing.assert_close(alone.product, truth.hessian @ v, rtol=1e-7, atol=1e-8)
    assert alone.values.shape == (6, 0)
    assert all(map(torch.equal, before, model.parameters()))


def test_in_the_coordinates_of_an_optimizer_the_step_is_in_them() -> None:
    model, batch = mlp().double(), labelled()
    loss_fn: Any = torch.nn.CrossEntropyLoss()
    adam = torch.optim.Adam(model.parameters(), lr=0.1, weight_decay=0.3)
    loss_fn(model(batch[0]), batch[1]).backward()
    adam.step()
    options = Options(optimizer=adam, metric="optimizer")
    problem = Problem.open(model, loss_fn, batch, options)
    u, v = torch.randn(2, problem.objective.size, dtype=torch.float64)
    known = per_sample_curvatures(problem, u, [v])
    found = per_sample_curvatures(replace(problem, slopes=slopes), u, [v])
    torch.testing.assert_close(found.product, known.product, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found.values, known.values, rtol=1e-6, atol=1e-6)


def test_along_nothing_there_is_no_curvature() -> None:
    problem = replace(Problem.open(*CASES[0].build()), slopes=slopes)
    zero = torch.zeros(problem.objective.size, dtype=torch.float64)
    product, values = differences(problem, zero, [zero])
    assert not product.any()
    assert not values.any()


def test_the_step_is_the_cube_root_of_the_coarsest_resolution() -> None:
    wide, half = torch.zeros(1, dtype=torch.float64), torch.zeros(1, dtype=torch.bfloat16)
    assert step_length([wide]) == pytest.approx(torch.finfo(torch.float64).eps ** (1 / 3))
    assert step_length([wide, half]) == pytest.approx(torch.finfo(torch.bfloat16).eps ** (1 / 3))


def test_parameters_are_put_back_after_an_error_in_between() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    before, fails = [p.detach().clone() for p in model.parameters()], False

    def loss_fn(model: nn.Module, batch: Any) -> Tensor:
        if fails:
            raise KeyError("in between")
        return nn.functional.cross_entropy(model(batch[0]), batch[1], reduction="none")

    data = torch.randn(8, 3).double(), torch.arange(8) % 2
    problem = gn.Hessian(model, loss_fn, data, hvp="finite").problem
    vector, fails = torch.ones(26).double(), True
    for ask in (
        lambda: weighted_product(problem, vector, torch.ones(8).double()),
        lambda: per_sample_curvatures(problem, vector, [vector]),
    ):
        with pytest.raises(KeyError) as kept:  # the error holds the frames it went through
            ask()
        assert kept.value.args == ("in between",)
        assert all(map(torch.equal, before, model.parameters()))
