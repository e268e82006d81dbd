"""`gn.measure`: the numbers of the single calls to the last digit, from fewer passes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import gradnoise as gn
from tests.counting import BugError, Counted, adam_after_steps, small_data, small_model, written_out

CRITERION = nn.CrossEntropyLoss()
# method of a measurement, the single call, and options of both
CALLS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "moments": (gn.gradient_moments, {"variance": True}),
    "noise_scale": (gn.noise_scale, {"probes": 8, "accuracy": 0.2}),
    "sharpness": (gn.sharpness, {"k": 2, "tol": 1e-4}),
    "covariance": (gn.covariance, {"k": 2, "probes": 8, "products": 8}),
    "diagnostics": (gn.diagnostics, {"lr": 0.1}),
    "profile": (gn.profile, {"batch_size": 8, "probes": 8}),
}


def measured(loss: Any = CRITERION, model: nn.Module | None = None, **options: Any) -> Any:
    return gn.measure(model or small_model(), loss, small_data(), **options)


def comparable(result: Any) -> Any:
    """Without what only says how much was spent, and when."""
    found = written_out(result)
    if isinstance(found, dict):
        found.pop("matvecs", None)
        found.pop("cost", None)
        found.pop("date", None)
    return found


@pytest.mark.parametrize("population", ["dataset", "distribution"])
@pytest.mark.parametrize("name", CALLS)
def test_every_number_is_that_of_the_single_call(name: str, population: str) -> None:
    single, options = CALLS[name]
    common = {"population": population, "max_samples": 32, "seed": 5}
    alone = single(small_model(), CRITERION, small_data(), **common, **options)
    m = measured(**common)
    assert comparable(getattr(m, name)(**options)) == comparable(alone)


@pytest.mark.parametrize("order", [1, -1], ids=["forth", "back"])
def test_the_order_of_the_calls_changes_no_number(order: int) -> None:
    m = measured(population="distribution")
    for name in list(CALLS)[::order]:
        single, options = CALLS[name]
        alone = single(
            small_model(), CRITERION, small_data(), population="distribution",
            **({"max_samples": 4096} if name == "moments" else {}), **options,
        )  # fmt: skip
        assert comparable(getattr(m, name)(**options)) == comparable(alone)


@pytest.mark.parametrize("name", CALLS)
def test_in_the_optimizers_metric_as_well(name: str) -> None:
    single, options = CALLS[name]
    model = small_model()
    common = {"optimizer": adam_after_steps(model), "metric": "optimizer"}
    alone = single(model, CRITERION, small_data(), **common, **options)
    assert comparable(getattr(measured(model=model, **common), name)(**options)) == comparable(
        alone
    )


def test_together_the_calls_evaluate_fewer_samples_than_one_by_one() -> None:
    loss = Counted()
    m = measured(loss, population="distribution")
    together = loss.of(
        lambda: [getattr(m, name)(**options) for name, (_, options) in CALLS.items()]
    )
    alone = Counted()
    for single, options in CALLS.values():
        single(small_model(), alone, small_data(), population="distribution", **options)
    assert together < 0.9 * alone.samples


def test_moments_are_measured_once_for_all_that_need_them() -> None:
    loss = Counted()
    m = measured(loss, population="distribution")
    m.moments()
    m.diagnostics()  # brings the variance, which is another pass
    assert loss.of(m.moments) == 0
    spent = loss.of(lambda: m.noise_scale(probes=2))
    fresh = measured(again := Counted(), population="distribution")
    assert again.of(lambda: fresh.noise_scale(probes=2)) > spent


def test_after_a_step_all_is_measured_where_the_model_stands_then() -> None:
    model = small_model()
    m = measured(model=model, max_samples=20, seed=3)
    before = {name: comparable(getattr(m, name)(**options)) for name, (_, options) in CALLS.items()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    for name, (single, options) in CALLS.items():
        now = comparable(getattr(m, name)(**options))
        assert now != before[name]
        fresh = single(model, CRITERION, small_data(), max_samples=20, seed=3, **options)
        assert now == comparable(fresh)


def test_a_profile_reads_the_optimizers_settings_anew() -> None:
    model = small_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    m = measured(model=model, optimizer=optimizer)
    assert m.profile(probes=2).optimizer.lr == 0.1
    optimizer.param_groups[0]["lr"] = 0.3
    assert m.profile(probes=2).optimizer.lr == 0.3


def test_in_its_metric_a_step_of_the_optimizer_is_noticed() -> None:
    model = small_model()
    common = {"optimizer": adam_after_steps(model), "metric": "optimizer"}
    m = measured(model=model, **common)
    first = float(m.sharpness().values[0])
    for state in common["optimizer"].state.values():  # the parameters stay where they are
        state["exp_avg_sq"].mul_(4)
    again = float(m.sharpness().values[0])
    assert again == pytest.approx(first / 2, rel=1e-3)
    assert again == float(gn.sharpness(model, CRITERION, small_data(), **common).values[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"level": 1.5}, r"`level` is a coverage.*got 1.5"),
        ({"seed": 1.5}, r"`seed` must be a whole number from 0 on; got 1.5"),
        ({"metric": "riemann"}, r"`metric` must be one of euclidean, optimizer"),
        ({"metric": "optimizer"}, r"needs `optimizer`"),
        ({"max_samples": 0}, r"`max_samples` must be a whole number from 2"),
    ],
)
def test_options_out_of_range_are_refused_at_once(options: dict[str, Any], message: str) -> None:
    with pytest.raises(gn.ArgumentError, match=message):
        measured(**options)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.profile(probes=1), r"`probes` must be a whole number from 2 on; got 1"),
        (lambda m: m.profile(accuracy=-1.0), r"`accuracy` is a relative error"),
        (lambda m: m.noise_scale(accuracy=-1.0), r"`accuracy` is a relative error"),
        (lambda m: m.sharpness(operator="fisher"), r"`operator` must be one of .*got 'fisher'"),
        (lambda m: m.profile(batch_size=0), r"`batch_size` must be a whole number from 1 on"),
    ],
)
def test_options_of_a_method_are_refused_there(call: Callable[[Any], Any], message: str) -> None:
    m = measured()
    with pytest.raises(gn.ArgumentError, match=message):
        call(m)
    assert m.moments().count == 40


@pytest.mark.parametrize("name", CALLS)
def test_an_error_of_the_loss_leaves_the_model_as_found_and_the_measurement_usable(
    name: str,
) -> None:
    options = CALLS[name][1]
    model, loss = small_model(), Counted()
    model(small_data()[0]).sum().backward()
    before = [(p.tolist(), p.grad.tolist()) for p in model.parameters()]
    m = measured(loss, model, population="distribution")
    loss.fails_from = loss.calls + 9
    with pytest.raises(BugError, match="a bug in my loss_fn"):
        getattr(m, name)(**options)
    assert [(p.tolist(), p.grad.tolist()) for p in model.parameters()] == before
    loss.fails_from = float("inf")
    fresh = measured(Counted(), model, population="distribution")
    expected = comparable(getattr(fresh, name)(**options))
    assert comparable(getattr(m, name)(**options)) == expected


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
    own = measured(model=model, population="distribution")
    before, graphs = own.moments(), own.hessian()
    change(model)
    fresh = measured(model=model, population="distribution")
    assert own.moments() is not before
    assert written_out(own.moments()) == written_out(fresh.moments())
    assert own.hessian() is not graphs
    vector = torch.ones(fresh.problem.objective.size, dtype=torch.float64)
    assert torch.equal(own.hessian() @ vector, fresh.hessian() @ vector)


@pytest.mark.parametrize("metric", ["euclidean", "optimizer"])
def test_changes_are_looked_for_once_per_guard(
    metric: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, looked = small_model(), list[int]()
    own = measured(model=model, optimizer=adam_after_steps(model), metric=metric)
    plain, problem = own._now, own.problem
    monkeypatch.setattr(own, "_now", lambda: [looked.append(1), plain()][1])
    with problem.guard():
        before = own.moments()
        own.hessian()
    assert len(looked) == 1
    in_place(model)
    with problem.guard():
        assert own.moments() is not before
    assert len(looked) == 2


def test_a_change_of_the_criterions_class_weights_is_noticed() -> None:
    weights = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    criterion = nn.CrossEntropyLoss(weight=weights, reduction="sum")
    own = measured(criterion)
    first = float(own.moments().loss)
    criterion.weight.mul_(2)
    assert float(own.moments().loss) == pytest.approx(2 * first, rel=1e-12)


def test_the_samples_stay_when_the_model_changes() -> None:
    model = small_model()
    own = measured(model=model, max_samples=20)
    samples = own.problem.samples
    in_place(model)
    assert own.problem.samples is samples
    assert own.moments().count == 20


def test_other_parameters_are_refused_with_what_to_do() -> None:
    model = small_model()
    own = measured(model=model)
    model[3].weight = nn.Parameter(model[3].weight.detach().clone())
    with pytest.raises(gn.ModelError, match=r"has other trainable parameters.*build .* again"):
        own.moments()


def test_another_mode_is_refused_with_what_to_do() -> None:
    model = small_model()
    own = measured(model=model)
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
    own = measured(model=model, **options)
    before = own.moments()
    change(options["optimizer"])
    assert float(own.moments().grad_sq_norm) != float(before.grad_sq_norm)
    assert written_out(own.moments()) == written_out(measured(model=model, **options).moments())


def test_in_its_metric_nothing_is_measured_twice_while_the_optimizer_stays() -> None:
    model = small_model()
    own = measured(model=model, optimizer=adam_after_steps(model), metric="optimizer")
    assert own.problem is own.problem
    assert own.moments() is own.moments()


def test_in_the_parameters_themselves_the_optimizer_does_not_matter() -> None:
    model = small_model()
    optimizer = adam_after_steps(model)
    own = measured(model=model, optimizer=optimizer, metric="euclidean")
    before = own.moments()
    second_moments(optimizer)
    assert own.moments() is before
