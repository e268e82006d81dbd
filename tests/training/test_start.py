"""Where a model and its optimizer stand: copies train on, the originals do not."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

import gradnoise as gn
from gradnoise.training.run import train
from gradnoise.training.start import Start
from tests.small_runs import DATA, half_frozen, small
from tests.starts import ALONE, CE, FEW, STACKED, Own, plan_at, runs_of, state_of, trained

EVERY = {**STACKED, **ALONE}


def steps_of(model: nn.Module, optimizer: torch.optim.Optimizer, count: int = 3) -> list[Any]:
    """The weights after some steps on all samples."""
    for _ in range(count):
        optimizer.zero_grad()
        CE(model(DATA[0]), DATA[1]).backward()
        optimizer.step()
    return [p.detach().clone() for p in model.parameters()]


@pytest.mark.parametrize("name", EVERY)
def test_a_copy_goes_on_as_the_original_would(name: str) -> None:
    model, optimizer = trained(EVERY[name])
    start, before = Start(model, optimizer), state_of(model, optimizer)
    own = start.copy()
    assert all(p.grad is None for p in own.parameters())
    found = steps_of(own, start.optimizer_of(own))
    assert state_of(model, optimizer) == before
    for ours, theirs in zip(found, steps_of(model, optimizer), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("name", EVERY)
def test_which_optimizers_are_stepped_one_by_one(name: str) -> None:
    reason = Start(*trained(EVERY[name])).why_not_stacked()
    assert (reason is None) == (name in STACKED)
    if name in ("RMSprop", "a user's"):
        assert str(reason).endswith("is stepped one by one")
    if name == "dampening":
        assert reason == "SGD with dampening is stepped one by one"


def test_a_parameter_that_the_optimizer_does_not_hold_is_named() -> None:
    model, optimizer = trained(lambda m: torch.optim.SGD(m[0].parameters(), 0.1))
    assert Start(model, optimizer).why_not_stacked() == "the optimizer does not hold '2.weight'"


def test_frozen_parameters_and_those_of_no_model_are_no_hindrance() -> None:
    extra = nn.Parameter(torch.ones(2))
    model, optimizer = trained(
        lambda m: torch.optim.SGD([*m.parameters(), extra], 0.1, momentum=0.9), half_frozen()
    )
    start = Start(model, optimizer)
    assert start.why_not_stacked() is None
    assert set(start.steps(2).memory["first"]) == {"2.weight", "2.bias"}


def test_what_a_scheduler_and_hooks_added_is_not_copied() -> None:
    calls: list[int] = []
    model, optimizer = trained(STACKED["Adam"])
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    optimizer.register_step_post_hook(lambda *_: calls.append(1))
    start, before = Start(model, optimizer), state_of(model, optimizer)
    own = start.copy()
    steps_of(own, start.optimizer_of(own))
    assert not calls
    assert state_of(model, optimizer) == before
    optimizer.step()
    scheduler.step()
    assert len(calls) == 1
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.005)


def test_the_attributes_of_a_users_optimizer_are_copied() -> None:
    model, optimizer = trained(lambda m: Own(m.parameters(), 0.1))
    start = Start(model, optimizer)
    found = start.optimizer_of(start.copy())
    assert found.taken == [0, 1, 2]
    assert found.taken is not optimizer.taken


@pytest.mark.parametrize("lr", [0.0, torch.tensor(0.0), float("nan"), None])
def test_a_rate_that_is_not_positive_is_refused(lr: Any) -> None:
    model, optimizer = trained()
    optimizer.param_groups[0]["lr"] = lr
    with pytest.raises(gn.ArgumentError, match=r"must be positive, because runs start from .* got"):
        Start(model, optimizer).check()


def test_a_rate_that_is_a_tensor_is_read() -> None:
    model, optimizer = trained(
        lambda m: torch.optim.AdamW(m.parameters(), lr=torch.tensor(0.01), foreach=False)
    )
    assert Start(model, optimizer).lr == pytest.approx(0.01)
    train(plan_at(model, optimizer), runs_of()[0])
    assert float(optimizer.param_groups[0]["lr"]) == pytest.approx(0.01)


def test_an_optimizer_of_another_model_is_refused() -> None:
    _, optimizer = trained()
    with pytest.raises(gn.ArgumentError, match="`optimizer` holds no parameter of `model`"):
        Start(small(), optimizer).check()


def test_an_optimizer_that_needs_a_closure_is_refused() -> None:
    model = small()
    with pytest.raises(gn.ArgumentError, match=r"LBFGS.step needs a closure"):
        Start(model, torch.optim.LBFGS(model.parameters())).check()


def test_an_optimizer_of_frozen_parameters_is_refused() -> None:
    model = small()
    frozen = list(model.parameters())[:1]
    frozen[0].requires_grad_(False)
    with pytest.raises(gn.ArgumentError, match="`optimizer` holds only frozen parameters"):
        Start(model, torch.optim.SGD(frozen, 0.1)).check()


def test_a_model_that_is_not_initialised_yet_is_refused() -> None:
    model = nn.Sequential(nn.LazyLinear(3))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    message = "parameter '0.weight' is not initialised yet; run the model once"
    with pytest.raises(gn.ModelError, match=message):
        Start(model, optimizer).check()
    with pytest.raises(gn.ModelError, match=message):
        gn.branch(model, CE, DATA, optimizer, **FEW)


class Uncopied:
    def __deepcopy__(self, memo: Any) -> Any:
        raise TypeError("a handle\nof this process")


def test_what_cannot_be_copied_is_said() -> None:
    model, optimizer = trained()
    model.handle = Uncopied()
    with pytest.raises(
        gn.ModelError, match=r"`model` cannot be copied, .* \(TypeError: a handle\)\. Detach"
    ):
        Start(model, optimizer).copy()
    del model.handle
    optimizer.handle = Uncopied()
    with pytest.raises(
        gn.ArgumentError, match=r"`optimizer` cannot be copied, .* \(TypeError: a handle\)\. Keep"
    ):
        Start(model, optimizer).optimizer_of(copy.deepcopy(model))


@pytest.mark.parametrize("name", EVERY)
def test_the_digest_changes_with_the_state_and_the_settings(name: str) -> None:
    model, optimizer = trained(EVERY[name])
    first = Start(model, optimizer).digest()
    assert Start(*copy.deepcopy((model, optimizer))).digest() == first
    if name not in ("SGD", "a user's"):  # these have no state
        for state in optimizer.state.values():
            buffer = next(v for v in state.values() if isinstance(v, torch.Tensor) and v.ndim)
            buffer.add_(1e-6)
            break
        assert Start(model, optimizer).digest() != first
    optimizer.param_groups[0]["lr"] *= 2
    assert Start(model, optimizer).digest() != first
