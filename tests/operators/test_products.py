"""Products in forward mode and by differences, and what they leave behind."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gradnoise as gn
from gradnoise.operators import products as hvp_module
from gradnoise.operators.hessian import MODES
from tests import oracles
from tests.cases import CASES, Case, named
from tests.dense import CLOSE, dense
from tests.kernels import OnceOnly

FORWARD = [case for case in CASES if case.name not in ("scripted", "sparse embedding")]


@pytest.mark.parametrize("case", FORWARD, ids=named)
def test_forward_mode_gives_the_same(case: Case) -> None:
    model, loss_fn, batch = case.build()
    hessian = gn.Hessian(model, loss_fn, batch, hvp="forward", micro_batch=4)
    truth = oracles.dense(model, loss_fn, batch).hessian
    torch.testing.assert_close(dense(hessian), truth, **CLOSE)


@pytest.mark.parametrize("case", CASES, ids=named)
def test_finite_differences_give_nearly_the_same(case: Case) -> None:
    model, loss_fn, batch = case.build()
    hessian = gn.Hessian(model, loss_fn, batch, hvp="finite", micro_batch=4)
    truth = oracles.dense(model, loss_fn, batch).hessian
    before = [p.detach().clone() for p in model.parameters()]
    off = (dense(hessian) - truth).norm() / truth.norm()
    assert float(off) < 1e-8
    assert all(map(torch.equal, before, model.parameters()))


def test_differences_say_how_far_they_can_be_trusted() -> None:
    inputs, labels = torch.randn(512, 10), torch.randint(3, (512,))
    for activation, fine in ((nn.Tanh(), True), (nn.ReLU(), False)):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(10, 50), activation, nn.Linear(50, 3))
        hessian = gn.Hessian(model, nn.CrossEntropyLoss(), (inputs, labels), hvp="finite")
        v = torch.randn(703)
        exact = gn.Hessian(model, nn.CrossEntropyLoss(), (inputs, labels)) @ v
        off = float((hessian @ v - exact).norm() / exact.norm())
        assert (hessian.resolution < 1e-3) is fine
        assert off < 3 * hessian.resolution
        if fine:
            assert gn.lanczos(hessian, tol=1e-2, max_iterations=30).converged
        else:
            with pytest.raises(gn.OperatorError, match=r"are uncertain by .*kinks"):
                gn.lanczos(hessian)


def test_forward_mode_is_held_to_the_gradient() -> None:
    model, _, (x, y) = CASES[0].build()
    captured = list(model.parameters())

    def penalised(m: nn.Module, batch: Any) -> Tensor:
        losses = nn.functional.cross_entropy(m(batch[0]), batch[1], reduction="none")
        return losses + sum(p.pow(4).sum() for p in captured)

    assert gn.Hessian(model, penalised, (x, y)).hvp == "kept"
    with pytest.raises(gn.CurvatureError, match="does not reach all uses"):
        gn.Hessian(model, penalised, (x, y), hvp="forward")


@pytest.mark.parametrize("hvp", MODES)
def test_a_product_that_is_interrupted_leaves_everything_as_found(
    hvp: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, loss_fn, batch = CASES[0].build()
    hessian = gn.Hessian(model, loss_fn, batch, hvp=hvp, micro_batch=2)
    before = [p.detach().clone() for p in model.parameters()]
    truth = hessian @ torch.ones(43)
    add, calls = hvp_module._add, []

    def interrupted(*parts: Any) -> None:
        calls.append(parts)
        if len(calls) == 2:
            raise KeyboardInterrupt
        add(*parts)

    monkeypatch.setattr(hvp_module, "_add", interrupted)
    with pytest.raises(KeyboardInterrupt) as held:
        hessian @ torch.ones(43)
    assert held.value is not None  # with its traceback, and the frames in it
    assert all(map(torch.equal, before, model.parameters()))
    torch.testing.assert_close(hessian @ torch.ones(43), truth)


def test_differences_are_taken_outside_of_an_autocast_around_the_call() -> None:
    model, loss_fn, (x, y) = CASES[0].build()
    hessian = gn.Hessian(model.float(), loss_fn, (x.float(), y), hvp="finite")
    plain = hessian @ torch.ones(43)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(hessian @ torch.ones(43), plain)


def test_an_operation_without_forward_mode_is_named() -> None:
    model, _, (x, _) = CASES[0].build()
    loss = lambda m, b: OnceOnly.apply(m(b)).square().sum(1)  # noqa: E731
    with pytest.raises(gn.CurvatureError, match=r"forward mode fails: .*Pass `hvp='auto'`"):
        gn.Hessian(model, loss, x, hvp="forward")


def test_differences_give_the_product_of_a_quadratic_to_rounding() -> None:
    x = torch.tensor([[1.0, 2.0], [3.0, -1.0]], dtype=torch.float64)
    model = nn.Linear(2, 1, bias=False).double()
    hessian = gn.Hessian(model, nn.MSELoss(), (x, torch.zeros(2, 1).double()), hvp="finite")
    torch.testing.assert_close(dense(hessian), x.T @ x, rtol=1e-8, atol=1e-8)  # 2 XᵀX/n
    assert not (hessian @ torch.zeros(2)).any()  # no step, and no division by its length
