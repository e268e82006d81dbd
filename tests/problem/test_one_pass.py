"""A pass confirms what an earlier call found; where that is outdated, all is measured anew."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import gradnoise as gn
from gradnoise.problem.confirmation import confirm
from gradnoise.problem.one_pass import in_one_pass
from gradnoise.problem.options import Options
from gradnoise.problem.problem import Problem
from tests.counting import SAMPLES, BugError, adam_after_steps, counted, small_data, small_model

SINGLE = Options(unit="sample")


class Coupling:
    """Losses with a state that no signature tells of: the strength with which they are coupled.

    Args:
        least: samples from which on they are.
    """

    def __init__(self, least: int = 0) -> None:
        self.strength, self._least = torch.zeros((), dtype=torch.float64), least

    def __call__(self, model: nn.Module, batch: Any) -> Tensor:
        losses = F.cross_entropy(model(batch[0]), batch[1], reduction="none")
        own = losses + self.strength * (losses.mean() - losses)
        return losses if len(losses) < self._least else own


def by_a_pass(problem: Problem) -> Tensor:
    """The losses of all samples, and whether they confirm what was found."""
    losses = problem.objective.losses(problem.largest_batch()).detach()
    confirm(problem.objective, problem.largest_batch(), losses)
    return losses


def by_no_pass(problem: Problem) -> Tensor:
    """As engines that take the samples apart."""
    return problem.objective.losses(problem.largest_batch()).detach()


def measured(find: Callable[[Problem], Any], model: nn.Module, loss_fn: Any) -> Any:
    return in_one_pass(find, model, loss_fn, small_data(), SINGLE)


@pytest.mark.parametrize(("find", "few"), [(by_a_pass, [2]), (by_no_pass, [5, 2])])
def test_what_was_found_is_confirmed_once(
    find: Callable[[Problem], Any], few: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, loss_fn = small_model(), Coupling()
    first = measured(find, model, loss_fn)
    counts = counted(monkeypatch)
    assert torch.equal(measured(find, model, loss_fn), first)
    assert counts == [SAMPLES, *few]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"micro_batch": 10}, [10, 2, 10, 10, 10]),
        ({"micro_batch": 4}, [4] * 10 + [4, 2]),  # too few to have others around them
        ({"metric": "optimizer"}, [SAMPLES, 2]),
        ({"engine": "hooks"}, [SAMPLES, 2]),
    ],
    ids=["micro-batches", "small ones", "metric", "by name"],
)
def test_the_first_micro_batch_with_enough_samples_confirms(
    options: dict[str, Any], expected: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, loss_fn = small_model(), Coupling()
    optimizer = adam_after_steps(model) if "metric" in options else None
    calls = functools.partial(gn.gradient_moments, model, loss_fn, small_data(), **options)
    calls(optimizer=optimizer)
    counts = counted(monkeypatch)
    calls(optimizer=optimizer)
    assert counts == expected


@pytest.mark.parametrize("find", [by_a_pass, by_no_pass])
def test_samples_that_have_become_coupled_are_noticed(find: Callable[[Problem], Any]) -> None:
    model, loss_fn = small_model(), Coupling()
    measured(find, model, loss_fn)
    loss_fn.strength.fill_(0.3)
    for _ in range(2):  # nor is it known in the next call
        with pytest.raises(gn.CoupledSamplesError, match="one sample changes the loss of another"):
            measured(find, model, loss_fn)


def test_samples_that_are_coupled_in_large_batches_alone_are_noticed() -> None:
    model, loss_fn = small_model(), Coupling(least=20)
    measured(by_a_pass, model, loss_fn)
    loss_fn.strength.fill_(0.3)
    with pytest.raises(gn.CoupledSamplesError, match="one sample changes the loss of another"):
        measured(by_a_pass, model, loss_fn)


@pytest.mark.parametrize("engine", ["hooks", "functional", "loop", "auto"])
@pytest.mark.parametrize("call", [gn.per_sample_sq_norms, gn.gradient_moments])
def test_every_engine_notices(call: Callable[..., Any], engine: str) -> None:
    model, loss_fn = small_model(), Coupling()
    options = {"unit": "sample"} if call is gn.gradient_moments else {}
    call(model, loss_fn, small_data(), engine=engine, **options)
    loss_fn.strength.fill_(0.3)
    with pytest.raises(gn.CoupledSamplesError, match="differ from the same samples' losses"):
        call(model, loss_fn, small_data(), engine=engine, **options)


def test_a_pass_that_fails_for_what_has_changed_is_made_anew() -> None:
    model, loss_fn, tries = small_model(), Coupling(), []

    def fails_first(problem: Problem) -> bool:
        tries.append(problem.objective.is_unconfirmed)
        if problem.objective.is_unconfirmed:
            raise BugError("operations are others")
        return True

    measured(by_a_pass, model, loss_fn)
    assert measured(fails_first, model, loss_fn)
    assert tries == [True, False]


@pytest.mark.parametrize(
    ("error", "confirmed"),
    [
        (BugError("mine"), True),
        (RuntimeError("out of memory"), False),
        (KeyboardInterrupt(), False),
    ],
    ids=["confirmed", "memory", "interrupted"],
)
def test_other_errors_are_raised_at_once(error: BaseException, confirmed: bool) -> None:
    model, loss_fn, tries = small_model(), Coupling(), list[int]()

    def fails(problem: Problem) -> None:
        tries.append(1)
        if confirmed:
            by_a_pass(problem)
        raise error

    measured(by_a_pass, model, loss_fn)
    with pytest.raises(type(error)):
        measured(fails, model, loss_fn)
    assert tries == [1]


def test_what_fails_without_an_earlier_call_fails_once() -> None:
    tries = list[int]()

    def fails(_problem: Problem) -> None:
        tries.append(1)
        raise BugError("mine")

    with pytest.raises(BugError):
        measured(fails, small_model(), Coupling())
    assert tries == [1]


def test_all_is_left_as_found_when_it_is_measured_anew() -> None:
    model, loss_fn = small_model(), Coupling()
    gn.gradient_moments(model, loss_fn, small_data())
    loss_fn.strength.fill_(0.3)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    assert gn.gradient_moments(model, loss_fn, small_data()).group_size > 1
    assert torch.equal(torch.get_rng_state(), state)
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    for parameter in model.parameters():
        assert parameter.grad is not None
        assert torch.equal(parameter.grad, torch.ones_like(parameter))
