"""Errors of tr(HΣ) and GᵀHG from influences: variances, third moments, and what probes add."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gradnoise as gn
from gradnoise.estimators.noise.errors import sampling_covariance, third_moment
from gradnoise.estimators.noise.sign_probes import Probed
from gradnoise.problem.problem import Problem
from gradnoise.tensors.random import independent_signs
from tests.analytic import TOYS
from tests.cases import network
from tests.enumerated import noise_scale_of


def test_a_population_as_large_as_the_sample_leaves_only_probe_error() -> None:
    model, loss_fn, batch = network()
    found = gn.noise_scale(model, loss_fn, batch, probes=8)
    assert found.grad_curvature.stderr == 0
    assert found.grad_sq_norm.is_exact
    assert found.simple.is_exact
    assert found.trace_hessian_cov.stderr > 0
    assert found.hessian.low < float(found.hessian) < found.hessian.high


def test_sampling_variances_are_those_of_the_influences() -> None:
    source = torch.Generator().manual_seed(0)
    own = torch.randn(400, generator=source, dtype=torch.float64)
    noise = 3 * torch.randn(8, 400, generator=source, dtype=torch.float64)
    curvature = own + torch.randn(400, generator=source, dtype=torch.float64)
    empty = torch.zeros(0)
    squares = torch.tensor([2.0, 4.0], dtype=torch.float64)
    probed = Probed(empty, empty, empty, own + noise, empty, squares, empty)
    moments: Any = SimpleNamespace(spread_factor=0.01, sampling_factor=0.01)
    trace, bend, both = sampling_covariance(probed, curvature, moments)
    assert trace == pytest.approx(0.01, rel=0.25)  # without the probes' part it would be 0.021
    assert bend == pytest.approx(0.01 * float(curvature.var()))
    assert both == pytest.approx(0.01, rel=0.25)
    weak = sampling_covariance(probed, 1e-6 * curvature, moments)
    assert weak[1] == pytest.approx(2 * 0.01**2 * 3.0)
    groups: Any = SimpleNamespace(spread_factor=0.02, sampling_factor=0.01)  # all samples in them
    assert sampling_covariance(probed, curvature, groups)[0] == pytest.approx(2 * trace)


def test_third_moments_of_probed_influences_hold_nothing_of_the_probes_noise() -> None:
    """All signs of a noise that grows with the influence itself: exact on the average."""
    source = torch.Generator().manual_seed(0)
    own, noise, other = torch.randn(3, 7, generator=source, dtype=torch.float64)
    noise = noise + 3 * own
    signs = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=4)), dtype=torch.float64)
    found = [third_moment(own + row[:, None] * noise, other) for row in signs]
    pair = torch.stack([own, other])
    expected = torch.einsum("an,bn,cn->abc", pair, pair, pair)
    torch.testing.assert_close(torch.stack(found).mean(0), expected, rtol=1e-11, atol=1e-11)
    few = third_moment(own.expand(2, -1), other)
    torch.testing.assert_close(few, expected, rtol=1e-11, atol=1e-11)


def test_few_probes_that_agree_by_chance_prove_nothing() -> None:
    toy = TOYS["linear regression"]
    for seed in range(30):
        problem = Problem.open(toy.model(), toy.loss_fn, toy.sample(3, 5))
        found = noise_scale_of(problem, independent_signs(2, 3, seed))
        assert not found.trace_hessian_cov.is_exact
        assert not found.hessian.is_exact


def test_two_samples_of_many_have_no_interval() -> None:
    toy = TOYS["linear regression"]
    found = gn.noise_scale(
        toy.model(), toy.loss_fn, toy.sample(2, seed=1), population="distribution"
    )
    for part in ("trace_cov", "grad_sq_norm", "grad_curvature", "trace_hessian_cov"):
        assert getattr(found, part).status is gn.Status.NO_INTERVAL, part


def test_probes_that_agree_but_for_rounding_prove_nothing() -> None:
    source = torch.zeros(40, 6, dtype=torch.float64)
    source[:, 0] = 1
    source[0, 1:3] += torch.tensor([1.3, 0.3])
    source[1, 1:3] -= torch.tensor([1.3, 0.3])

    class Bowl(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.zeros(6, dtype=torch.float64))

    def loss_fn(model: nn.Module, g: Tensor) -> Tensor:
        return g @ model.w + 0.5 * model.w.square().sum()

    for seed in range(40):
        found = gn.noise_scale(Bowl(), loss_fn, source, probes=2, seed=seed).trace_hessian_cov
        assert found.high > found.low or found.status is gn.Status.NO_INTERVAL


@pytest.mark.parametrize("exponent", [-42, -33, 33, 50])
def test_the_size_of_the_loss_only_scales_the_intervals_in_float32(exponent: int) -> None:
    model, criterion, batch = network()
    model, size = model.float(), 2.0**exponent
    batch = (batch[0].float(), batch[1])

    def measured(factor: float) -> list[float]:
        def loss_fn(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
            return factor * gn.supervised(criterion)(model, batch)

        found = gn.noise_scale(model, loss_fn, batch, population="distribution", probes=8)
        parts = (found.trace_hessian_cov, found.grad_curvature)
        ends = [end / factor**3 for part in parts for end in (part.low, part.high)]
        return [found.hessian.low, *ends, found.trace_cov.low / factor**2]

    assert measured(size) == pytest.approx(measured(1.0), rel=1e-9)
