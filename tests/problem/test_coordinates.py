"""Gradients and Hessians in z = P^½w, against dense ones with P by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gradnoise.operators.hessian import Hessian
from gradnoise.problem.options import Options
from gradnoise.problem.problem import Problem
from gradnoise.tensors.trees import flatten
from tests import oracles
from tests.cases import CORE, Case, named
from tests.dense import CLOSE, dense
from tests.optimizers import OPTIMIZERS, by_hand, in_coordinates, trained


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("case", CORE[:2], ids=named)
def test_derivatives_are_those_in_the_coordinates(case: Case, name: str) -> None:
    model, loss_fn, batch, optimizer = trained(case, name)
    problem = Problem.open(
        model, loss_fn, batch, Options(optimizer=optimizer, metric="optimizer", micro_batch=6)
    )
    truth = in_coordinates(model, oracles.dense(model, loss_fn, batch), optimizer)
    objective, weights = problem.objective, torch.arange(6.0).double()
    with problem.guard():
        found = flatten(objective.gradient(batch, weights))
    torch.testing.assert_close(found, weights @ truth.gradients, **CLOSE)
    torch.testing.assert_close(dense(Hessian.of(problem)), truth.hessian, **CLOSE)
    direction = torch.linspace(-1, 1, len(truth.hessian)).double()
    with problem.guard(), objective.second_order():
        product = objective.product(objective.gradient(batch, create_graph=True), direction)
    torch.testing.assert_close(flatten(product) / 6, truth.hessian @ direction, **CLOSE)


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW"])
def test_weight_decay_in_the_gradient_is_a_penalty_on_every_loss(name: str) -> None:
    model, loss_fn, batch, optimizer = trained(CORE[0], name)
    problem = Problem.open(model, loss_fn, batch)
    scaled = problem.in_metric(Options(optimizer=optimizer, metric="optimizer")).objective
    scale, inside, _ = by_hand(optimizer)
    point = nn.utils.parameters_to_vector(model.parameters()).detach()
    with problem.guard():
        penalty = scaled.losses(batch) - scaled.plain.losses(batch)
    expected = (inside * point.square()).sum() / 2
    torch.testing.assert_close(penalty.detach(), expected.expand(6), rtol=1e-10, atol=1e-14)
    decay = scaled.decay()
    assert (decay is None) is (name == "AdamW")  # decoupled: no part of the loss
    if decay is not None:
        found = torch.cat([part.flatten() for part in decay.values()])
        torch.testing.assert_close(found, scale.rsqrt() * inside * point)
