"""Gradient diversity and CABS: quotients written out, then their intervals."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

import gradnoise as gn
from gradnoise.statistics.quantile import quantile
from tests.clouds import draw


def rows(count: int = 50) -> Tensor:
    return draw(count, torch.Generator().manual_seed(0))


def test_diversity_is_the_quotient_of_sums() -> None:
    g = rows()
    moments = gn.noise_scale_from_gradients(g, population="dataset")
    literal = float(g.square().sum() / g.sum(0).square().sum())
    assert float(gn.gradient_diversity(moments)) == pytest.approx(literal, rel=1e-12)
    assert float(gn.diversity_bound(moments)) == pytest.approx(50 * literal, rel=1e-12)
    assert gn.diversity_bound(moments).is_exact


def test_diversity_of_a_part_aims_at_the_whole() -> None:
    moments = gn.noise_scale_from_gradients(rows(), population=400)
    scale, bound = moments.simple_noise_scale, gn.diversity_bound(moments)
    for end in ("value", "low", "high"):
        assert getattr(bound, end) == pytest.approx(1 + getattr(scale, end) * 399 / 400)
    with pytest.raises(gn.ArgumentError, match="take diversity_bound"):
        gn.gradient_diversity(gn.noise_scale_from_gradients(rows()))


def test_cabs_is_noise_over_loss() -> None:
    g = rows()
    losses = torch.linspace(0.5, 1.5, 50)
    moments = gn.noise_scale_from_gradients(g, losses=losses, population="dataset")
    trace = float(torch.cov(g.T).trace())
    assert float(gn.cabs_batch_size(moments, 0.1)) == pytest.approx(0.1 * trace)
    assert float(gn.cabs_batch_size(moments, 0.1, optimum=0.5)) == pytest.approx(0.2 * trace)
    assert gn.cabs_batch_size(moments, 0.1).is_exact
    bare = replace(moments, population=math.inf, slopes=None)
    assert gn.cabs_batch_size(bare, 0.1).status is gn.Status.NO_INTERVAL


def test_the_interval_of_cabs_holds() -> None:
    toy = gn.toy.NoisyQuadratic(torch.diag(torch.tensor([2.0, 1.0])), torch.tensor([1.0, 1.0]))
    truth, held = 0.1 * toy.truth().trace_cov / toy.truth().loss, 0
    w, h = toy.w, toy.hessian
    for seed in range(300):
        gaps = w - toy.sample(100, seed=seed)
        losses = 0.5 * ((gaps @ h) * gaps).sum(1)
        found = gn.cabs_batch_size(gn.noise_scale_from_gradients(gaps @ h, losses=losses), 0.1)
        held += found.low <= truth <= found.high
    assert held / 300 > 0.91  # 95 % give fewer than 274 of 300 in 3 sets of seeds of 1000


def test_the_interval_of_cabs_solves_fiellers_equation() -> None:
    g, losses = rows(), rows().square().sum(1) + torch.linspace(0, 5, 50)
    found = gn.cabs_batch_size(gn.noise_scale_from_gradients(g, losses=losses), 0.1)
    noise = 0.1 * (g - g.mean(0)).square().sum(1) * 50 / 49
    pair, t = torch.cov(torch.stack([noise, losses])) / 50, quantile(0.95, 49)
    for end in (found.low, found.high):
        reach = pair[0, 0] - 2 * end * pair[0, 1] + end**2 * pair[1, 1]
        gap = abs(float(noise.mean()) - end * float(losses.mean()))
        assert gap == pytest.approx(t * math.sqrt(reach), rel=0.03)


def test_cabs_needs_a_rate_and_a_loss_above_its_optimum() -> None:
    moments = gn.noise_scale_from_gradients(rows(), losses=torch.ones(50))
    with pytest.raises(gn.ArgumentError, match="`lr` must be positive"):
        gn.cabs_batch_size(moments, 0.0)
    with pytest.raises(gn.ArgumentError, match=r"L - L\* = 0\b"):
        gn.cabs_batch_size(moments, 0.1, optimum=1.0)
    with pytest.raises(gn.ArgumentError, match="Pass the losses"):
        gn.cabs_batch_size(gn.noise_scale_from_gradients(rows()), 0.1)
