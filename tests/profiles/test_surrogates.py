"""Gradients that are not the derivatives of the loss are said to be so."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import gradnoise as gn
from gradnoise.problem.problem import Problem
from gradnoise.profiles.surrogates import surrogate_note
from tests.cases import CASES, Case, cnn, images, labelled, mlp, named


class Spike(torch.autograd.Function):
    """A step whose gradient is that of a sigmoid."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return (x > 0).to(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        share = torch.sigmoid(4 * ctx.saved_tensors[0])
        return grad * 4 * share * (1 - share)


def straight_through(model: nn.Module, batch: Any) -> Tensor:
    """Weights rounded to multiples of a tenth, as in quantisation-aware training."""
    w = model[0].weight
    rounded = w + ((10 * w).round() / 10 - w).detach()
    hidden = F.linear(batch[0], rounded, model[0].bias).tanh()
    return F.cross_entropy(model[2](hidden), batch[1], reduction="none")


def spiking(model: nn.Module, batch: Any) -> Tensor:
    hidden = Spike.apply(model[0](batch[0]))
    return F.cross_entropy(model[2](hidden), batch[1], reduction="none")


def target_network(model: nn.Module, batch: Any) -> Tensor:
    """A difference whose other side is detached."""
    return (model(batch[0]) - 0.9 * model(-batch[0]).detach()).square().sum(1)


@pytest.mark.parametrize("loss_fn", [straight_through, spiking, target_network])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_is_said_in_the_report(loss_fn: Any, dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    x, y = labelled()
    p = gn.profile(mlp().to(dtype), loss_fn, (x.to(dtype), y), probes=4)
    said = [note for note in p.warnings if "gradients are not the derivatives of the loss" in note]
    assert len(said) == 1
    assert "gn.critical_lr is about the loss itself" in said[0]
    assert "sharpness" in p.estimates


def test_a_surrogates_curvature_is_that_of_its_gradients() -> None:
    """Of the layer after the step, whose gradients are derivatives: as for given inputs."""
    model, (x, y) = mlp().double(), labelled()
    hessian = gn.Hessian(model, spiking, (x, y))
    assert (hessian.hvp, hessian.problem.objective.hidden) == ("kept", [])
    inputs = (model[0](x) > 0).double()
    alone = gn.Hessian(model[2], nn.CrossEntropyLoss(), (inputs, y))
    v = torch.randn(alone.shape[0], dtype=torch.float64)
    whole = torch.cat([v.new_zeros(hessian.shape[0] - len(v)), v])
    torch.testing.assert_close((hessian @ whole)[-len(v) :], alone @ v)


@pytest.mark.parametrize("case", CASES, ids=named)
def test_nothing_is_said_of_derivatives(case: Case) -> None:
    assert surrogate_note(Problem.open(*case.build())) == ""


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("seed", range(5))
def test_kinks_and_rounding_are_no_surrogates(seed: int, dtype: torch.dtype) -> None:
    torch.manual_seed(seed)
    x, y = images()
    relu = nn.Sequential(nn.Flatten(), nn.Linear(x[0].numel(), 64), nn.ReLU(), nn.Linear(64, 3))
    for model in (cnn(), relu):
        batch = x.to(dtype), y % 3
        assert surrogate_note(Problem.open(model.to(dtype), nn.CrossEntropyLoss(), batch)) == ""


def test_an_autocast_inside_of_the_loss_is_no_surrogate() -> None:
    def in_half(model: nn.Module, batch: Any) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return F.cross_entropy(model(batch[0]).float(), batch[1], reduction="none")

    for seed in range(10):
        torch.manual_seed(seed)
        x, y = labelled()
        assert surrogate_note(Problem.open(mlp(), in_half, (x.float(), y))) == ""


def test_without_a_gradient_there_is_nothing_to_tell() -> None:
    model = nn.Linear(2, 1)
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    problem = Problem.open(model, lambda m, x: m(x).square()[:, 0], torch.randn(4, 2))
    assert surrogate_note(problem) == ""
