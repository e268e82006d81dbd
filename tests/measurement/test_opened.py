"""A model opened once: what is kept, when it is computed anew, and what is left behind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import gradnoise as gn
from gradnoise.measurement.opened import Opened
from gradnoise.problem.options import Options
from tests import counting
from tests.counting import BugError, Counted, adam_after_steps, small_data, small_model, written_out


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


# --- when it is computed anew ------------------------------------------------------------------


def in_place(model: nn.Module) -> None:
    with torch.no_grad():
        model[0].weight[0, 0] += 0.5


def through_data(model: nn.Module) -> None:
    model[0].weight.data[0, 0] += 0.5


def other_data(model: nn.Module) -> None:
    model[3].bias.data = model[3].bias.data + 0.5


def a_buffer(model: nn.Module) -> None:
    model[1].running_mean += 0.5


def a_buffer_through_data(model: nn.Module) -> None:
    model[1].running_mean.data += 0.5


def another_buffer(model: nn.Module) -> None:
    model[1].running_mean = model[1].running_mean + 0.5


def loaded(model: nn.Module) -> None:
    state = model.state_dict()
    model.load_state_dict({name: value * 1.5 for name, value in state.items()})


def stepped(model: nn.Module) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    inputs, labels = small_data()
    nn.functional.cross_entropy(model(inputs), labels).backward()
    optimizer.step()
    optimizer.zero_grad()


CHANGES = [
    in_place,
    through_data,
    other_data,
    a_buffer,
    a_buffer_through_data,
    another_buffer,
    loaded,
    stepped,
]


@pytest.mark.parametrize("change", CHANGES)
def test_after_a_change_of_the_model_all_is_measured_where_it_stands_then(
    change: Callable[[nn.Module], None],
) -> None:
    model = small_model()
    own = opened(model, population="distribution")
    before, graphs = own.moments(), own.hessian()
    change(model)
    fresh = opened(model, population="distribution")
    assert own.moments() is not before
    assert written_out(own.moments()) == written_out(fresh.moments())
    assert own.hessian() is not graphs
    vector = torch.ones(fresh.problem.objective.size, dtype=torch.float64)
    assert torch.equal(own.hessian() @ vector, fresh.hessian() @ vector)


def test_a_change_of_the_criterions_class_weights_is_noticed() -> None:
    weights = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    criterion = nn.CrossEntropyLoss(weight=weights, reduction="sum")
    own = opened(loss_fn=criterion)
    first = float(own.moments().loss)
    criterion.weight.mul_(2)
    assert float(own.moments().loss) == pytest.approx(2 * first, rel=1e-12)


def test_the_samples_stay_when_the_model_changes() -> None:
    model = small_model()
    own = opened(model, max_samples=20)
    samples = own.problem.samples
    in_place(model)
    assert own.problem.samples is samples
    assert own.moments().count == 20


def test_other_parameters_are_refused_with_what_to_do() -> None:
    model = small_model()
    own = opened(model)
    model[3].weight = nn.Parameter(model[3].weight.detach().clone())
    with pytest.raises(gn.ModelError, match=r"has other trainable parameters.*build .* again"):
        own.moments()


def test_another_mode_is_refused_with_what_to_do() -> None:
    model = small_model()
    own = opened(model)
    model.train()
    with pytest.raises(gn.ModelError, match=r"other training modes.*build .* again"):
        own.moments()


# --- the optimizer's metric --------------------------------------------------------------------


def second_moments(optimizer: torch.optim.Optimizer) -> None:
    for state in optimizer.state.values():
        state["exp_avg_sq"].mul_(4)


def another_state(optimizer: torch.optim.Optimizer) -> None:
    saved = optimizer.state_dict()
    for state in saved["state"].values():
        state["exp_avg_sq"] = state["exp_avg_sq"] * 4
    optimizer.load_state_dict(saved)


def a_setting(optimizer: torch.optim.Optimizer) -> None:
    optimizer.param_groups[0]["eps"] = 0.1


def weight_decay(optimizer: torch.optim.Optimizer) -> None:
    optimizer.param_groups[0]["weight_decay"] = 0.5


def step_count(optimizer: torch.optim.Optimizer) -> None:
    for state in optimizer.state.values():
        state["step"] += 5


STATES = [second_moments, another_state, a_setting, weight_decay, step_count]


@pytest.mark.parametrize("change", STATES)
def test_in_its_metric_a_change_of_the_optimizer_alone_is_noticed(
    change: Callable[[torch.optim.Optimizer], None],
) -> None:
    model = small_model()
    options = {"optimizer": adam_after_steps(model), "metric": "optimizer"}
    own = opened(model, **options)
    before = own.moments()
    change(options["optimizer"])
    assert float(own.moments().grad_sq_norm) != float(before.grad_sq_norm)
    assert written_out(own.moments()) == written_out(opened(model, **options).moments())


def test_in_its_metric_nothing_is_measured_twice_while_the_optimizer_stays() -> None:
    model = small_model()
    own = opened(model, optimizer=adam_after_steps(model), metric="optimizer")
    assert own.problem is own.problem
    assert own.moments() is own.moments()


def test_in_the_parameters_themselves_the_optimizer_does_not_matter() -> None:
    model = small_model()
    optimizer = adam_after_steps(model)
    own = opened(model, optimizer=optimizer, metric="euclidean")
    before = own.moments()
    second_moments(optimizer)
    assert own.moments() is before


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
