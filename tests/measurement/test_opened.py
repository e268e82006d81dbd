"""A model opened once: what is kept, when it is computed anew, and what is left behind."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import gradnoise as gn
from gradnoise.measurement.opened import Opened
from gradnoise.problem.options import Options
from tests import counting
from tests.counting import BugError, Counted, small_data, small_model, written_out


def opened(model: nn.Module | None = None, loss_fn: Any = None, **options: Any) -> Opened:
    parts = model or small_model(), loss_fn or nn.CrossEntropyLoss(), small_data()
    return Opened.open(*parts, Options(**options))


# --- what is kept ------------------------------------------------------------------------------


def test_while_the_model_stays_everything_is_computed_once() -> None:
    own = opened()
    assert own.problem is own.problem
    assert own.engine is own.engine
    assert own.moments() is own.moments()
    assert own.hessian() is own.hessian()


def test_moments_are_measured_once() -> None:
    loss = Counted()
    own = opened(loss_fn=loss, population="distribution")
    assert loss.of(own.moments) > counting.SAMPLES
    assert loss.of(own.moments) == 0
    assert loss.of(lambda: own.moments(intervals=False)) == 0  # the first of the passes above


def test_intervals_go_on_from_the_moments_without_them() -> None:
    loss = Counted()
    own = opened(loss_fn=loss, population="distribution")
    plain = loss.of(lambda: own.moments(intervals=False))
    own.engine  # noqa: B018
    rest = loss.of(own.moments)
    again = Counted()
    alone = again.of(opened(loss_fn=again, population="distribution").moments)
    assert plain + rest == alone


def test_the_engine_passes_once_over_every_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    own, seen = opened(), []
    summaries = own.engine.summaries
    monkeypatch.setattr(
        own.engine,
        "summaries",
        lambda batch, wanted: seen.append(batch) or summaries(batch, wanted),
    )
    for _ in range(3):
        own.moments()
    assert sum(len(batch[1]) for batch in seen) == counting.SAMPLES


def test_moments_of_other_options_are_kept_apart() -> None:
    own = opened(population="distribution")
    plain, with_variance = own.moments(intervals=False), own.moments(variance=True)
    assert plain.variance is None
    assert with_variance.variance is not None
    assert plain.slopes is None
    assert with_variance.slopes is not None
    assert own.moments(intervals=False) is plain


def test_hessians_of_other_options_are_kept_apart() -> None:
    own = opened()
    assert own.hessian(hvp="fresh") is own.hessian(hvp="fresh")
    assert own.hessian(hvp="fresh") is not own.hessian()
    assert own.hessian(memory_budget=10**6) is not own.hessian()


def test_progress_is_told_the_samples_of_the_pass() -> None:
    done: list[int] = []
    opened().moments(tick=done.append)
    assert sum(done) == counting.SAMPLES


def test_where_parameters_have_changed_the_samples_stay_and_all_else_is_computed_anew() -> None:
    model = small_model()
    own = opened(model, population="distribution", max_samples=20)
    before = own.moments()
    with torch.no_grad():
        model[0].weight.mul_(1.5)  # type: ignore[operator, union-attr]
    now, fresh = own.anew(), opened(model, population="distribution", max_samples=20)
    assert now.problem.samples is own.problem.samples
    assert written_out(now.moments()) == written_out(fresh.moments()) != written_out(before)


def test_other_parameters_are_refused_with_what_to_do() -> None:
    model = small_model()
    own = opened(model)
    model[3].weight = nn.Parameter(model[3].weight.detach().clone())
    with pytest.raises(gn.ModelError, match=r"has other trainable parameters.*build .* again"):
        own.moments()


# --- errors ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"level": 1.5}, r"`level` is a coverage.*got 1.5"),
        ({"seed": -1}, r"`seed` must be a whole number from 0 on; got -1"),
        (
            {"metric": "riemann"},
            r"`metric` must be one of euclidean, optimizer, auto; got 'riemann'",
        ),
        ({"metric": "optimizer"}, r"metric='optimizer' needs `optimizer`.*got NoneType"),
        ({"max_samples": 1}, r"`max_samples` must be a whole number from 2 on; got 1"),
        ({"micro_batch": 0}, r"`micro_batch` must be a whole number from 1 on; got 0"),
        ({"population": "many"}, r"`population` must be .*got 'many'"),
        ({"population": 10}, r"`population` = 10 is smaller than the 40"),
    ],
)
def test_an_option_out_of_range_is_refused_when_it_is_opened(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(gn.ArgumentError, match=message):
        opened(**options)


def test_an_engine_that_is_unknown_is_refused_when_it_is_needed() -> None:
    own = opened(engine="warp")
    with pytest.raises(gn.EngineError, match=r"`engine` must be one of .*got 'warp'"):
        own.moments()


@pytest.mark.parametrize("fails_from", [3, 5, 8, 10])
def test_an_error_of_the_loss_leaves_everything_as_found(fails_from: int) -> None:
    model = small_model()
    model(small_data()[0]).sum().backward()
    before = [(p.tolist(), p.grad.tolist()) for p in model.parameters()]
    state, modes = model.state_dict(), [m.training for m in model.modules()]
    random_state = torch.get_rng_state()
    loss = Counted(fails_from)
    with pytest.raises(BugError, match="a bug in my loss_fn"):
        opened(model, loss, population="distribution").moments()
    assert [(p.tolist(), p.grad.tolist()) for p in model.parameters()] == before
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert [m.training for m in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), random_state)


def test_after_an_error_it_can_be_asked_again() -> None:
    loss = Counted()
    own = opened(loss_fn=loss, population="distribution")
    own.engine  # noqa: B018
    loss.fails_from = loss.calls + 3
    with pytest.raises(BugError, match="a bug in my loss_fn"):
        own.moments()
    loss.fails_from = float("inf")
    expected = opened(loss_fn=Counted(), population="distribution").moments()
    assert written_out(own.moments()) == written_out(expected)
