"""The part of |G|² that is gone at averaged weights."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

import gradnoise as gn
from tests.cases import mlp
from tests.numbers import same
from tests.small_runs import DATA, normalised, small

TOY = gn.toy.LinearRegression(torch.tensor([3.0, 2.0, 1.0]), torch.ones(3), noise=0.5)


def moved(model: nn.Module, by: float) -> nn.Module:
    """A copy with other weights."""
    copied = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in copied.parameters():
            parameter += by * torch.linspace(-1, 1, parameter.numel()).view_as(parameter)
    return copied


def state(model: nn.Module) -> list[Any]:
    tensors = [*model.parameters(), *model.buffers()]
    return [(id(t), t.data_ptr(), t._version, t.tolist(), t.grad is None) for t in tensors]


@pytest.mark.parametrize("curvature", [False, True])
def test_each_side_is_what_a_measurement_there_gives(curvature: bool) -> None:
    model, data = TOY.model(), TOY.sample(150, seed=0)
    other = moved(model, 0.3)
    found = gn.swing(model, TOY.loss_fn, data, other, curvature=curvature, max_samples=100)
    for side, at in ((found.iterate, model), (found.averaged, other)):
        moments = gn.gradient_moments(at, TOY.loss_fn, data, max_samples=100)
        for name in ("loss", "grad_sq_norm", "trace_cov", "simple_noise_scale"):
            same(getattr(side, name), getattr(moments, name))
        if curvature:
            scale = gn.noise_scale(at, TOY.loss_fn, data, max_samples=100)
            same(side.noise_scale, scale.hessian)
            same(side.grad_curvature, scale.grad_curvature)
            same(side.trace_hessian_cov, scale.trace_hessian_cov)
        else:
            assert side.noise_scale is side.grad_curvature is side.trace_hessian_cov is None


def test_the_share_is_exact_where_all_samples_are_measured() -> None:
    model, data = small(), DATA
    other = moved(model, 0.1)
    found = gn.swing(model, nn.CrossEntropyLoss(), data, other).share
    squares = []
    for at in (model, other):
        loss = nn.functional.cross_entropy(at(data[0]), data[1])
        gradients = torch.autograd.grad(loss, list(at.parameters()))
        squares.append(sum(float(g.square().sum()) for g in gradients))
    assert found.is_exact
    assert float(found) == pytest.approx(1 - squares[1] / squares[0], rel=1e-9)


def test_the_interval_of_the_share_holds_it() -> None:
    """Least squares of 3 parameters on samples of a distribution: G = C(w - w*) is known."""
    model, covered, draws = TOY.model(), 0, 120
    other = moved(model, 0.3)
    truth = 1 - float(signal(other)) / float(signal(model))
    for seed in range(draws):
        data = TOY.sample(100, seed=seed)
        found = gn.swing(model, TOY.loss_fn, data, other, population="distribution").share
        covered += found.low <= truth <= found.high
    assert 0.89 <= covered / draws <= 1.0


def signal(model: nn.Module) -> Tensor:
    (weights,) = model.parameters()
    data = TOY.sample(200_000, seed=99)
    loss = TOY.loss_fn(model, data).mean()
    (gradient,) = torch.autograd.grad(loss, [weights])
    return gradient.square().sum()


def test_a_shared_error_of_both_sides_cancels() -> None:
    """The same weights on both sides: the share is zero, and known to be."""
    model, data = TOY.model(), TOY.sample(100, seed=0)
    share = gn.swing(model, TOY.loss_fn, data, model, population="distribution").share
    assert float(share) == 0.0
    assert share.high - share.low < 1e-6


def test_averages_of_every_kind_give_the_same() -> None:
    model = small()
    other = moved(model, 0.1)
    average = AveragedModel(other)
    found = [
        gn.swing(model, nn.CrossEntropyLoss(), DATA, given).share
        for given in (other, average, other.state_dict(), dict(other.named_parameters()))
    ]
    for share in found[1:]:
        same(share, found[0])


def test_the_model_is_as_found_afterwards_also_after_an_error() -> None:
    model = normalised().eval()
    other = moved(model, 0.1)
    other[1].running_mean += 1.0
    before = state(model)
    gn.swing(model, nn.CrossEntropyLoss(), DATA, other)
    assert state(model) == before
    with torch.no_grad():
        other[0].weight.fill_(torch.nan)
    with pytest.raises(gn.LossError, match="not finite"):
        gn.swing(model, nn.CrossEntropyLoss(), DATA, other)
    assert state(model) == before


def test_buffers_are_those_of_the_average() -> None:
    model = normalised().eval()
    other = copy.deepcopy(model)
    other[1].running_mean += 1.0
    found = gn.swing(model, nn.CrossEntropyLoss(), DATA, other)
    same(found.averaged.loss, gn.gradient_moments(other, nn.CrossEntropyLoss(), DATA).loss)
    assert float(found.share) != 0


def test_both_sides_can_be_pooled_and_printed() -> None:
    model, data = TOY.model(), TOY.sample(150, seed=0)
    found = [
        gn.swing(model, TOY.loss_fn, data, moved(model, by), curvature=True)
        for by in (0.1, 0.2, 0.3)
    ]
    assert gn.pool([swing.averaged for swing in found]).noise_scale.is_resolved
    for words in ("share of |G|² that is swing", "B_noise, averaged", "B_simple, here"):
        assert words in str(found[0])


def without_curvature() -> gn.Swing:
    return gn.swing(small(), nn.CrossEntropyLoss(), DATA, small())


def test_sides_without_curvature_are_pooled_for_b_simple_alone() -> None:
    found = without_curvature()
    assert "B_noise" not in str(found)
    assert gn.pool([found.averaged]).noise_scale.status is gn.Status.NO_INTERVAL


@pytest.mark.parametrize(
    ("averaged", "message"),
    [
        (3.0, "`averaged` must be a module or tensors by name; got float"),
        (mlp(), "must hold '0.bias' of shape .6.*; got shape .5"),
        ({}, "must hold '0.bias' of shape .6.*; got nothing"),
        ({"0.bias": [0.0] * 6}, "must hold '0.bias' of shape .6.*; got list"),
    ],
)
def test_what_is_no_average_of_the_model_is_refused(averaged: Any, message: str) -> None:
    with pytest.raises(gn.ArgumentError, match=message):
        gn.swing(small(), nn.CrossEntropyLoss(), DATA, averaged)


def test_a_model_that_is_not_initialised_yet_is_refused() -> None:
    with pytest.raises(gn.ModelError, match=r"parameter '0\.weight' is not initialised yet"):
        gn.swing(nn.Sequential(nn.LazyLinear(3)), nn.CrossEntropyLoss(), DATA, {})
