"""What every engine does alike: losses that are not finite, and the model left as found."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import gradnoise as gn
from gradnoise.per_sample.choice import ENGINES
from gradnoise.problem.objective import Objective
from tests.cases import features


@pytest.mark.parametrize("engine", ENGINES)
def test_a_loss_that_is_not_finite_is_an_error_in_every_engine(engine: str) -> None:
    objective = Objective(nn.Linear(4, 1).double(), lambda model, x: model(x).sum(1) / 0.0)
    with objective.guard(), pytest.raises(gn.LossError, match="not finite"):
        list(ENGINES[engine](objective).chunks(features()))


@pytest.mark.parametrize("engine", ENGINES)
def test_a_gradient_that_is_not_finite_leaves_the_model_as_found_at_once(engine: str) -> None:
    """Also while the error, and with it every frame it went through, is still held."""
    model = nn.Linear(4, 1, bias=False).double()
    model(features()).sum().backward()
    batch = features()
    batch[2] = 0.0
    grad, state = model.weight.grad, torch.get_rng_state()
    with pytest.raises(gn.LossError, match="not finite") as held:
        gn.per_sample_sq_norms(
            model, lambda m, x: m(x).square().sum(1).sqrt(), batch, engine=engine
        )
    assert model.weight.grad is grad
    assert torch.equal(torch.get_rng_state(), state)
    assert held.value
