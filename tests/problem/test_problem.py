"""A problem is an objective and its samples, opened and checked once."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import gradnoise as gn
from gradnoise.problem.options import Options
from gradnoise.problem.problem import Problem
from gradnoise.tensors.trees import sample_count
from tests.cases import CORE
from tests.optimizers import trained
from tests.refusals import CE, X, Y, linear, snapshot


def test_opening_draws_the_samples_by_the_options() -> None:
    options = Options(max_samples=5, seed=3, micro_batch=2, population=20)
    first, again = (Problem.open(linear(), CE, (X, Y), options) for _ in range(2))
    assert (first.samples.counts, first.samples.population) == ((2, 2, 1), 20)
    for own, other in zip(first.batches(), again.batches(), strict=True):
        torch.testing.assert_close(own, other, rtol=0, atol=0)
    assert sample_count(first.largest_batch()) == 2


def test_opening_leaves_everything_as_it_was() -> None:
    model = linear()
    before = snapshot(model)
    Problem.open(model, CE, (X, Y))
    assert snapshot(model) == before


def test_one_sample_is_enough_where_no_spread_is_asked_for() -> None:
    data = X[:1], Y[:1]
    with pytest.raises(gn.DataError, match="got 1 sample; at least 2"):
        Problem.open(linear(), CE, data)
    assert Problem.open(linear(), CE, data, least=1).samples.count == 1


def test_batches_of_one_are_joined_for_the_checks() -> None:
    model = nn.Sequential(linear(), nn.BatchNorm1d(2))
    with pytest.raises(gn.CoupledSamplesError, match=r"1 \(BatchNorm1d\)"):
        Problem.open(model, CE, (X, Y), Options(micro_batch=1, unit="sample"))


def test_a_metric_is_taken_and_left_again() -> None:
    model, loss_fn, batch, optimizer = trained(CORE[0], "Adam")
    options = Options(optimizer=optimizer, metric="optimizer")
    problem = Problem.open(model, loss_fn, batch, options)
    assert problem.objective.preconditioner is not None
    assert problem.plain.objective.preconditioner is None
    assert problem.plain.samples is problem.samples
    assert problem.in_metric(Options()).objective is problem.plain.objective
    first = problem.objective.preconditioner.root["0.weight"]
    for state in optimizer.state.values():
        state["exp_avg_sq"] *= 4
    second = problem.in_metric(options).objective.preconditioner
    assert second is not None
    torch.testing.assert_close(second.root["0.weight"], first / 2**0.5, rtol=1e-4, atol=0)


def test_the_guard_of_a_metric_is_that_of_the_parameters() -> None:
    model, loss_fn, batch, optimizer = trained(CORE[0], "Adam")
    problem = Problem.open(model, loss_fn, batch)
    entered = problem.objective.entered
    scaled = problem.in_metric(Options(optimizer=optimizer, metric="optimizer"))
    with scaled.guard(), problem.guard(), scaled.guard():
        assert problem.objective.entered == entered + 1
