"""Losses inside of torch.func and forward mode: a reason in words, and the right numbers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.func import functional_call, grad, jacrev, jvp, vmap

import gradnoise as gn
from gradnoise.per_sample.hooks.transforms import transforms_of
from gradnoise.problem.objective import Objective
from tests import oracles

FUNC = "torch.func (grad, jacrev, jvp, vmap)"


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).double()


def inputs() -> Tensor:
    return torch.randn(12, 3, dtype=torch.float64)


def of_one(model: nn.Module) -> Any:
    parameters = dict(model.named_parameters())
    return lambda sample: functional_call(model, parameters, (sample[None],)).sum()


def forces(model: nn.Module, x: Tensor) -> Tensor:
    x = x.detach().requires_grad_()
    (force,) = torch.autograd.grad(model(x).sum(), x, create_graph=True)
    return force.square().sum(1)


def forward_mode(model: nn.Module, x: Tensor) -> Tensor:
    with forward_ad.dual_level():
        dual = model(forward_ad.make_dual(x, torch.ones_like(x)))
        return forward_ad.unpack_dual(dual).tangent[:, 0]


LOSSES: dict[str, Any] = {
    "forces": (forces, "", "loop"),
    "grad": (lambda m, x: vmap(grad(of_one(m)))(x).square().sum(1), FUNC, "functional"),
    "jacrev": (lambda m, x: vmap(jacrev(of_one(m)))(x).square().sum(1), FUNC, "functional"),
    "jvp": (lambda m, x: jvp(m, (x,), (torch.ones_like(x),))[1][:, 0], FUNC, "functional"),
    "forward mode": (forward_mode, "torch.autograd.forward_ad", "functional"),
}


def slope(model: nn.Module, x: Tensor) -> Tensor:
    """The derivative along ones, by reverse mode."""
    x = x.detach().requires_grad_()
    return torch.autograd.grad(model(x).sum(), x, create_graph=True)[0].sum(1)


@pytest.mark.parametrize("name", LOSSES)
def test_the_reason_is_a_sentence_and_the_numbers_are_right(name: str) -> None:
    loss_fn, transforms, engine = LOSSES[name]
    model, x = network(), inputs()
    assert transforms_of(Objective(model, loss_fn), x) == transforms
    said = transforms or "torch.autograd.grad or .backward() through the model"
    assert f"loss_fn calls {said}" in gn.explain_engine(model, loss_fn, x).reason
    with pytest.raises(gn.EngineError, match="which the hooks do not support") as error:
        gn.per_sample_sq_norms(model, loss_fn, x, engine="hooks")
    assert "Use engine='auto'" in str(error.value)
    known = forces if name in ("forces", "grad", "jacrev") else slope
    truth = oracles.dense(model, known, x)
    p = gn.profile(model, loss_fn, x, tol=1e-7)
    assert p.engine == engine
    assert float(p.trace_cov) == pytest.approx(oracles.trace_cov(truth.gradients))
    largest = torch.linalg.eigvalsh(truth.hessian)[-1]
    assert float(p.sharpness) == pytest.approx(float(largest), rel=1e-5)


def test_the_cures_of_forward_mode_work() -> None:
    model, x = network(), inputs()
    ones = torch.ones(21, dtype=torch.float64)
    with pytest.raises(gn.CurvatureError, match=r"forward mode fails.*Pass `hvp='auto'`"):
        gn.Hessian(model, forward_mode, x, hvp="forward")
    truth = oracles.dense(model, slope, x).hessian
    torch.testing.assert_close(gn.Hessian(model, forward_mode, x, hvp="auto") @ ones, truth @ ones)


def test_a_model_without_transforms_has_none() -> None:
    assert transforms_of(Objective(network(), lambda m, x: m(x)[:, 0]), inputs()) == ""
