"""Measured in the metric of an optimizer: dense gradients and Hessians with P by hand."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gradnoise as gn
from gradnoise.problem.losses.criterion import supervised
from gradnoise.problem.options import Options
from gradnoise.problem.problem import Problem
from tests import oracles
from tests.cases import CORE, Case, named
from tests.enumerated import noise_scale_of
from tests.optimizers import OPTIMIZERS, in_coordinates, trained


@pytest.mark.parametrize("engine", ["hooks", "functional", "backpack", "loop"])
@pytest.mark.parametrize("case", CORE[:3], ids=named)
def test_every_engine_measures_the_same(case: Case, engine: str) -> None:
    if engine == "backpack":
        pytest.importorskip("backpack")
    model, loss_fn, batch, optimizer = trained(case, "Adam")
    moments = gn.gradient_moments(
        *(model, loss_fn, batch),
        engine=engine,
        optimizer=optimizer,
        metric="optimizer",
        variance=True,
        population="distribution",
    )
    plain = oracles.dense(model, loss_fn, batch, second=False)
    plain = replace(plain, hessians=torch.zeros(6, 1, 1))
    g = in_coordinates(model, plain, optimizer).gradients
    mean = torch.cat([part.flatten() for part in moments.mean.values()])
    spread = torch.cat([part.flatten() for part in moments.variance.values()])
    torch.testing.assert_close(mean, g.mean(0), rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(spread, g.var(0), rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(moments.sq_norms, g.square().sum(1))
    torch.testing.assert_close(moments.slopes, g @ g.mean(0))
    assert float(moments.trace_cov) == pytest.approx(float(g.var(0).sum()), rel=1e-10)


@pytest.mark.parametrize("name", ["SGD", "Adam"])
def test_single_parameters_have_their_part_of_every_sample(name: str) -> None:
    model, loss_fn, batch, optimizer = trained(CORE[0], name)
    options = {"optimizer": optimizer, "metric": "optimizer", "population": "distribution"}
    moments = gn.gradient_moments(model, loss_fn, batch, **options)
    plain = oracles.dense(model, loss_fn, batch, second=False)
    plain = replace(plain, hessians=torch.zeros(6, 1, 1))
    first = in_coordinates(model, plain, optimizer).gradients[:, :20]
    part = moments.restrict(["0.weight"])
    torch.testing.assert_close(part.sq_norms, first.square().sum(1))
    torch.testing.assert_close(part.slopes, first @ first.mean(0))


def test_where_p_is_one_nothing_changes() -> None:
    model, loss_fn, batch = CORE[0].build()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    options = {"optimizer": optimizer, "population": "distribution", "batch_size": 2}
    plain = gn.profile(model, loss_fn, batch, **options)
    own = gn.profile(model, loss_fn, batch, metric="optimizer", **options)
    for name, estimate in plain.estimates.items():
        for end in ("value", "low", "high"):
            found = getattr(own.estimates[name], end)
            assert found == pytest.approx(getattr(estimate, end), rel=1e-7, nan_ok=True), name
    assert own.setting == plain.setting


def penalised(model: nn.Module, loss_fn: Any, batch: Any, decay: float) -> float:
    square = sum(float(p.detach().square().sum()) for p in model.parameters())
    with torch.no_grad():
        return float(supervised(loss_fn)(model, batch).mean()) + decay / 2 * square


def hold_sums(optimizer: Any) -> None:
    """Those of Adagrad, whose unit is changed with that of P, and those of Adafactor."""
    for state in optimizer.state.values():
        if "sum" in state:  # so large that the square of a gradient adds nothing
            state["sum"].mul_(1e18)
    for group in optimizer.param_groups:
        if "beta2_decay" in group:
            group["beta2_decay"], group["d"] = -1000.0, 1e12  # no new squares, no clipping


def hold(optimizer: Any, momentum: bool = True) -> None:
    """Second moments stay as they are, for steps to come; without momentum if so wished."""
    hold_sums(optimizer)
    for group in optimizer.param_groups:
        for state in optimizer.state.values():
            for key in {"exp_avg_sq", "max_exp_avg_sq"} & state.keys():
                state[key].div_(1 - group["betas"][1] ** float(state["step"]))
            if "exp_avg_sq" in state:
                state["step"].fill_(10.0**17)
            if "mu_product" in state:
                state["mu_product"].zero_()
        if "betas" in group:
            group["betas"] = (group["betas"][0] if momentum else 0.0, 1 - 1e-15)
        if "alpha" in group:
            group["alpha"] = 1.0
        if "momentum" in group and not momentum:
            group["momentum"] = 0.0


@pytest.mark.parametrize(
    "name", ["SGD", "Adam", "amsgrad", "AdamW", "RMSprop", "Adagrad", "Adafactor"]
)
@pytest.mark.parametrize("case", CORE[:3], ids=named)
def test_real_steps_change_the_loss_as_predicted(case: Case, name: str) -> None:
    """Mean over all batches of one: L - ε|G|² + ½ε²(GᵀHG + (1 - 1/N) tr(HΣ)), 1/(N - 1) in Σ."""
    model, loss_fn, (x, y), optimizer = trained(case, name)
    hold(optimizer, momentum=False)
    if name in ("AdamW", "Adafactor"):
        optimizer.param_groups[0]["weight_decay"] = 0.0
    decay = optimizer.param_groups[0]["weight_decay"]
    options = Options(optimizer=optimizer, metric="optimizer")
    scale = noise_scale_of(Problem.open(model, loss_fn, (x, y), options), steps=6)
    start = penalised(model, loss_fn, (x, y), decay)

    def change(lr: float) -> float:
        found = 0.0
        for i in range(6):
            twin = copy.deepcopy(model)
            own = OPTIMIZERS[name](list(twin.parameters()))
            own.load_state_dict(copy.deepcopy(optimizer.state_dict()))
            own.param_groups[0]["lr"] = lr
            loss_fn(twin(x[i : i + 1]), y[i : i + 1]).backward()
            own.step()
            found += penalised(twin, loss_fn, (x, y), decay) / 6
        return found - start

    lr = 2e-4 / math.sqrt(float(scale.trace_cov) + float(scale.grad_sq_norm))
    one, two, four = (change(lr * factor) for factor in (1, 2, 4))
    # of a polynomial without constant: its first two derivatives, free of the third
    slope = (32 * one - 12 * two + four) / (12 * lr)
    bend = (-16 * one + 10 * two - four) / (4 * lr**2)
    assert slope == pytest.approx(-float(scale.grad_sq_norm), rel=1e-4)
    predicted = float(scale.grad_curvature) + 5 / 6 * float(scale.trace_hessian_cov)
    assert bend == pytest.approx(predicted, rel=1e-2)


BOWL = torch.tensor([[1.0, 0.4], [0.4, 9.0]], dtype=torch.float64)


def bowl_loss(model: Any, x: Tensor) -> Tensor:
    return 0.5 * model[0] @ BOWL @ model[0] + x @ model[0]


def descend(model: nn.Module, x: Tensor, optimizer: Any, steps: int, far: float = 1e4) -> float:
    """How far from the minimum at 0 the steps end; no further than they have to."""
    for _ in range(steps):
        optimizer.zero_grad()
        bowl_loss(model, x).mean().backward()
        optimizer.step()
        if float(model[0].detach().norm()) > far:
            break
    return float(model[0].detach().norm())


STABLE: dict[str, Any] = {
    "Adam without momentum": lambda p: torch.optim.Adam(p, lr=0.01, betas=(0.0, 0.999)),
    "Adam": lambda p: torch.optim.Adam(p, lr=0.01),
    "AdamW without momentum": lambda p: torch.optim.AdamW(
        p, lr=0.01, betas=(0.0, 0.999), weight_decay=0.3
    ),
    "NAdam": lambda p: torch.optim.NAdam(p, lr=0.01),
    "RMSprop": lambda p: torch.optim.RMSprop(p, lr=0.01),
    "Adagrad": lambda p: torch.optim.Adagrad(p, lr=0.01),
    "Adafactor": lambda p: torch.optim.Adafactor(p, lr=0.01, eps=(None, 1e3)),  # over ‖w‖
    "RMSprop with momentum": lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.9),
    "SGD with decay": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.8, weight_decay=2.0),
    "Nesterov": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.8, nesterov=True),
}


@pytest.mark.parametrize("name", STABLE)
def test_just_beyond_the_stable_rate_steps_diverge(name: str) -> None:
    model = nn.ParameterList([nn.Parameter(torch.tensor([1.0, 2.0], dtype=torch.float64))])
    x = torch.tensor([[1.0, -1.0], [-1.0, 1.0]], dtype=torch.float64)
    optimizer = STABLE[name](model.parameters())
    descend(model, x, optimizer, 3)
    hold(optimizer)
    profile = gn.profile(
        model, bowl_loss, x, optimizer=optimizer, metric="optimizer", tol=1e-12, probes=2
    )
    limit = float(profile.stable_lr())
    if name == "Adam without momentum":
        assert limit == pytest.approx(2 / float(profile.sharpness))
    sizes = {}
    for factor in (0.98, 1.02):
        twin = copy.deepcopy(model)
        own = STABLE[name](twin.parameters())
        own.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        own.param_groups[0]["lr"] = factor * limit
        sizes[factor] = descend(twin, x, own, 1500)
    assert sizes[0.98] < 1
    assert sizes[1.02] > 1e4


def test_the_report_says_in_which_metric_it_is(tmp_path: Any) -> None:
    model, loss_fn, batch, optimizer = trained(CORE[0], "AdamW")
    p = gn.profile(model, loss_fn, batch, optimizer=optimizer, metric="optimizer", batch_size=2)
    assert (p.metric, p.setting.lr, p.setting.momentum) == ("optimizer", 0.01, 0.9)
    assert p.setting.effective_lr == pytest.approx(0.01)
    assert "AdamW has taken 3 steps: its second moments have not settled" in str(p)
    assert p.optimizer is not None
    settled = replace(p, optimizer=replace(p.optimizer, steps=1000))
    text = settled.report(full=True)
    for words in (
        "in the metric of AdamW: gradients P^-½g and Hessian P^-½HP^-½",
        "stable rate 38/λ",
        "AdamW is unstable at this point beyond it",
    ):
        assert words in " ".join(text.split())
    assert any("second moments held" in note for note in p.warnings)
    assert not any("those of plain SGD" in note for note in p.warnings)
    p.save(tmp_path / "p.json")
    assert gn.Profile.load(tmp_path / "p.json") == p
    assert p.to_dict()["metric"] == "optimizer"
    assert gn.profile(model, loss_fn, batch, optimizer=optimizer, batch_size=2) == p  # "auto"
    plain = gn.profile(model, loss_fn, batch, optimizer=optimizer, metric="euclidean")
    assert plain.metric == "euclidean"
    assert any("those of plain SGD" in note for note in plain.warnings)
    assert "in the metric" not in str(plain)


@pytest.mark.parametrize("name", ["SGD", "Adam", "RMSprop", "NAdam"])
def test_auto_is_the_metric_of_adaptive_optimizers(name: str) -> None:
    model, loss_fn, batch, optimizer = trained(CORE[0], name)
    metric = "euclidean" if name == "SGD" else "optimizer"
    for call in (
        lambda **o: float(gn.gradient_moments(model, loss_fn, batch, **o).trace_cov),
        lambda **o: float(gn.sharpness(model, loss_fn, batch, **o).values[0]),
        lambda **o: float(gn.measure(model, loss_fn, batch, **o).moments().grad_sq_norm),
    ):
        assert call(optimizer=optimizer) == call(optimizer=optimizer, metric=metric)


def test_before_the_first_step_auto_is_euclidean_and_says_why() -> None:
    model, loss_fn, batch, _ = trained(CORE[0], "SGD")
    fresh = torch.optim.AdamW(model.parameters(), lr=0.01)
    m = gn.measure(model, loss_fn, batch, optimizer=fresh)
    p = m.profile(batch_size=2)
    assert (p.metric, p.recommend().lr) == ("euclidean", None)
    assert any(
        note.startswith("not measured in the metric of AdamW: AdamW holds no state for '0.weight'")
        for note in p.warnings
    )
    assert "after AdamW has taken about 1000 steps" in str(p.recommend())
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    fresh.step()
    fresh.zero_grad()
    assert m.profile(batch_size=2).metric == "optimizer"  # the state is read when it is there


def test_an_optimizer_without_a_known_metric_is_measured_in_the_euclidean_one() -> None:
    model, loss_fn, batch, _ = trained(CORE[0], "SGD")
    p = gn.profile(model, loss_fn, batch, optimizer=torch.optim.Adadelta(model.parameters()))
    assert (p.metric, p.recommend().lr) == ("euclidean", None)
    assert not any(note.startswith("not measured in the metric") for note in p.warnings)


def test_a_tracker_keeps_to_one_metric() -> None:
    model, loss_fn, batch, optimizer = trained(CORE[0], "Adam")
    fresh = torch.optim.Adam(model.parameters())
    tracker = gn.SharpnessTracker(model, loss_fn, batch, optimizer=fresh)
    with pytest.raises(gn.ArgumentError, match="take a step first"):
        tracker.update()
    own = gn.SharpnessTracker(model, loss_fn, batch, optimizer=optimizer, tol=1e-6).update()
    truth = gn.sharpness(model, loss_fn, batch, optimizer=optimizer, metric="optimizer", tol=1e-6)
    torch.testing.assert_close(own.values, truth.values, rtol=1e-5, atol=0)


def test_nothing_of_the_users_is_changed() -> None:
    model, loss_fn, batch, optimizer = trained(CORE[0], "Adam")
    before = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    gn.profile(model, loss_fn, batch, optimizer=optimizer, metric="optimizer")
    after = (model.state_dict(), optimizer.state_dict())
    assert str(before) == str(after)
    assert all(p.grad is None for p in model.parameters())
