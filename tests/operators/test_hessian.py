"""The Hessian against the dense one, in every mode."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gradnoise as gn
from gradnoise.measurement.opened import Opened
from gradnoise.operators.hessian import MODES, Hessian
from gradnoise.problem.options import Options
from tests import oracles
from tests.cases import CASES, Case, labelled, named
from tests.dense import CLOSE, dense
from tests.kernels import cut
from tests.many import opened, regression, written


@pytest.mark.parametrize("hvp", ["kept", "fresh"])
@pytest.mark.parametrize("case", CASES, ids=named)
def test_the_hessian_is_the_dense_one(case: Case, hvp: str) -> None:
    model, loss_fn, batch = case.build()
    hessian = gn.Hessian(model, loss_fn, batch, hvp=hvp, micro_batch=4)
    truth = oracles.dense(model, loss_fn, batch).hessian
    assert hessian.shape == truth.shape
    torch.testing.assert_close(dense(hessian), truth, **CLOSE)
    torch.testing.assert_close(dense(hessian), truth, **CLOSE)  # again, through what was kept
    assert hessian.T is hessian
    assert hessian.hvp == hvp


@pytest.mark.parametrize("hvp", MODES)
def test_an_empty_parameter_is_no_obstacle_to_any_products(hvp: str) -> None:
    model, loss_fn, batch = CASES[0].build()
    truth = oracles.dense(model, loss_fn, batch).hessian
    model.register_parameter("nothing", nn.Parameter(torch.zeros(0, 3, dtype=torch.float64)))
    found = dense(gn.Hessian(model, loss_fn, batch, hvp=hvp))
    torch.testing.assert_close(found, truth, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("case", CASES[:3], ids=named)
def test_torch_func_says_the_same(case: Case) -> None:
    model, loss_fn, batch = case.build()
    names = [name for name, _ in model.named_parameters()]
    shapes = [p.shape for p in model.parameters()]

    def loss(vector: Tensor) -> Tensor:
        parts = vector.split([shape.numel() for shape in shapes])
        named = {n: p.view(s) for n, p, s in zip(names, parts, shapes, strict=True)}
        outputs = torch.func.functional_call(model, named, (batch[0],))
        return loss_fn(outputs, batch[1])

    point = torch.cat([p.detach().flatten() for p in model.parameters()])
    truth = torch.func.hessian(loss)(point)
    torch.testing.assert_close(dense(gn.Hessian(model, loss_fn, batch)), truth, **CLOSE)


def test_an_unknown_mode_is_an_error() -> None:
    assert set(MODES) == {"auto", "kept", "fresh", "forward", "finite"}
    with pytest.raises(gn.ArgumentError, match="`hvp` must be one of auto, kept"):
        gn.Hessian(*CASES[0].build(), hvp="exact")


def test_without_second_derivatives_auto_takes_differences() -> None:
    model, _, (x, _) = CASES[0].build()
    loss = lambda m, b: cut(m(b)).square().sum(1)  # noqa: E731
    smooth = lambda m, b: m(b).tanh().square().sum(1)  # noqa: E731
    hessian = gn.Hessian(model, loss, x)
    assert hessian.hvp == "finite"
    assert hessian.reason.startswith("no second derivatives: some operation of the model has no")
    truth = oracles.dense(model, smooth, x).hessian
    torch.testing.assert_close(dense(hessian), truth, rtol=1e-6, atol=1e-8)
    top = gn.sharpness(model, loss, x)
    assert float(top.values) == pytest.approx(float(torch.linalg.eigvalsh(truth)[-1]), rel=1e-4)
    with pytest.raises(gn.CurvatureError, match="no second derivative"):
        gn.Hessian(model, loss, x, hvp="kept")


@pytest.mark.parametrize("norm", [nn.utils.weight_norm, nn.utils.parametrizations.weight_norm])
def test_second_derivatives_that_contradict_each_other_are_not_believed(norm: Any) -> None:
    model = nn.Sequential(norm(nn.Linear(4, 5)), nn.Tanh(), nn.Linear(5, 3)).double()
    loss_fn, batch = nn.CrossEntropyLoss(), labelled()
    with pytest.raises(gn.CurvatureError, match="contradict each other"):
        gn.Hessian(model, loss_fn, batch, hvp="kept")
    hessian = gn.Hessian(model, loss_fn, batch)
    assert hessian.hvp == "finite"
    found = dense(hessian)
    torch.testing.assert_close(found, found.T, rtol=1e-6, atol=1e-8)


def test_an_autocast_around_the_call_is_left_for_products() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
    batch = (torch.randn(40, 6), torch.randint(3, (40,)))
    exact = gn.Hessian(model, nn.CrossEntropyLoss(), batch) @ torch.ones(83)
    for hvp in MODES:
        with torch.autocast("cpu", torch.bfloat16):
            hessian = gn.Hessian(model, nn.CrossEntropyLoss(), batch, hvp=hvp)
            found = hessian @ torch.ones(83)
            assert float(gn.lanczos(hessian, tol=1e-2).values) > 0
        torch.testing.assert_close(found, exact, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("budget", [0, 2**30])
def test_the_hessian_of_a_few_weighted_samples(budget: int) -> None:
    model, _, batch = regression()
    own = opened()
    positions = torch.tensor([0, 0, 5, 99, 100, 639])
    weights = torch.tensor([0.5, 2.0, 1.0, 0.0, 3.0, 1.5], dtype=torch.float64)
    few = Hessian.of_few(own.problem, positions, weights, budget)
    expected = (weights[:, None, None] * written(batch, model).hessians[positions]).mean(0)
    torch.testing.assert_close(dense(few), expected)
    assert few.hvp == ("kept" if budget else "fresh")


def test_a_few_samples_are_in_the_metric_of_the_optimizer() -> None:
    model, criterion, batch = regression()
    adam = torch.optim.Adam(model.parameters(), lr=0.01, weight_decay=0.1)
    criterion(model(batch[0]), batch[1]).backward()
    adam.step()
    own = Opened.open(model, criterion, batch, Options(optimizer=adam))
    every = torch.arange(len(batch[0]))
    few = Hessian.of_few(own.problem, every, torch.ones(len(every)))
    torch.testing.assert_close(dense(few), dense(own.hessian()))
