"""Which engine measures a model: the cheapest that reproduces the plain gradient."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gradnoise as gn
from gradnoise.per_sample.choice import choose
from gradnoise.problem.objective import Objective
from tests import oracles
from tests.cases import CASES, Case, features, mlp, named
from tests.layer_cases import Function, squares, unpadded


def chosen(case: Case) -> Any:
    model, loss_fn, batch = case.build()
    objective = Objective(model, loss_fn)
    with objective.guard():
        return choose(objective, batch)


@pytest.mark.parametrize("case", CASES, ids=named)
def test_auto_takes_the_fast_engine_wherever_it_is_right(case: Case) -> None:
    engine = chosen(case)
    assert engine.name == case.engines[0]
    assert bool(engine.failures) == (case.engines[0] != "hooks")
    assert engine.reason


def captured() -> tuple[nn.Module, Any]:
    """A penalty on parameters taken from outside, which torch.func cannot see."""
    model = mlp().double()
    weights = list(model.parameters())

    def loss(model: nn.Module, batch: Any) -> Tensor:
        return model(batch).square().sum(-1) + sum(w.square().sum() for w in weights)

    return model, loss


def test_parameters_captured_from_outside_are_measured() -> None:
    model, loss = captured()
    batch = features()
    truth = oracles.dense(model, loss, batch, second=False).gradients
    norms = gn.per_sample_sq_norms(model, loss, batch, engine="hooks")
    torch.testing.assert_close(norms, truth.square().sum(1), rtol=1e-9, atol=0)
    with pytest.raises(gn.EngineError, match="do not add up to the gradient of the batch"):
        gn.per_sample_sq_norms(model, loss, batch, engine="functional")


def test_a_parameter_whose_gradient_is_not_finite_does_not_excuse_the_others() -> None:
    model, loss = captured()

    def broken(model: nn.Module, batch: Any) -> Tensor:
        return loss(model, batch) + (0 * model[0].weight).sum().sqrt()

    with pytest.raises(gn.EngineError, match="do not add up to the gradient of the batch"):
        gn.per_sample_sq_norms(model, broken, features(), engine="functional")


def test_samples_that_share_their_losses_are_noticed_by_the_loop() -> None:
    def loss(model: nn.Module, batch: Any) -> Tensor:
        outputs = model(batch)
        return (outputs - outputs.mean(0)).square().sum(-1)

    objective = Objective(mlp().double(), loss)
    with (
        objective.guard(),
        pytest.raises(
            gn.CoupledSamplesError,
            match=r"one backward pass per sample, the gradients of parameter .* do not add up",
        ),
    ):
        choose(objective, features(), "loop")


def test_falling_back_is_said_with_the_reason() -> None:
    case = CASES[-1]
    profile = gn.profile(*case.build(), probes=2)
    assert profile.engine == "loop"
    assert "data-dependent" in profile.engine_reason
    assert f"engine: {profile.engine_reason}" in profile.warnings


def test_a_named_engine_that_cannot_is_an_error_that_names_the_way_out() -> None:
    with pytest.raises(gn.EngineError, match=r"engine='functional' cannot.*engine='loop'"):
        gn.per_sample_gradients(*CASES[-1].build(), engine="functional")


def test_an_unknown_engine_is_an_error() -> None:
    with pytest.raises(gn.EngineError, match=r"one of auto, .*hooks, loop; got 'fast'"):
        gn.per_sample_gradients(*CASES[0].build(), engine="fast")


@pytest.mark.parametrize("first", range(1, 13))
@pytest.mark.parametrize("engine", ["auto", "loop"])
def test_an_error_that_every_engine_meets_is_the_users_own(engine: str, first: int) -> None:
    calls = [0]

    def loss_fn(model: nn.Module, batch: Any) -> Tensor:
        calls[0] += 1
        if calls[0] >= first:
            raise KeyError("a bug in my loss_fn")
        return model(batch).square().sum(1)

    with pytest.raises(KeyError, match="a bug in my loss_fn"):
        gn.gradient_moments(nn.Linear(3, 2), loss_fn, torch.randn(8, 3), engine=engine)


def test_falling_back_in_mid_stream_is_said() -> None:
    model = Function(unpadded, inner=nn.Linear(4, 4), head=nn.Linear(4, 2)).double()
    whole = torch.randn(8, 6, 4).double(), torch.full((8,), 6)
    ragged = torch.randn(8, 6, 4).double(), torch.tensor([6, 6, 6, 6, 6, 2, 3, 4])
    profile = gn.profile(model, squares, [whole, ragged], probes=2)
    assert profile.engine != "hooks"
    assert any("hooks cannot" in warning for warning in profile.warnings)
    with pytest.raises(gn.EngineError, match=r"no dimension of the output|change from one"):
        gn.gradient_moments(model, squares, [whole, ragged], engine="hooks")
