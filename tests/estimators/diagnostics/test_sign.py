"""The noise scale of sign descent: derivatives, quadrature, then sampling."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from scipy import integrate

import gradnoise as gn
from gradnoise.estimators.diagnostics.sign import NULL_SPREAD, _debiased, _sign_noise
from tests.cases import CORE
from tests.matrices import draw, measure, rows


def test_influences_on_the_noise_are_derivatives_by_the_weights() -> None:
    g = rows(12)
    weights = torch.full((12,), 1 / 12, dtype=torch.float64, requires_grad=True)
    centred = g - torch.einsum("n,nij->ij", weights, g) / weights.sum()
    sign = (torch.einsum("n,nij->ij", weights, centred**2) / weights.sum()).sqrt().sum()
    (expected,) = torch.autograd.grad(sign, weights)
    found, influence = _sign_noise((g - g.mean(0)).reshape(12, -1))
    scale = math.sqrt(12 / 11)  # Σ with 1/(n - 1)
    assert found == pytest.approx(scale * sign.item(), rel=1e-12)
    torch.testing.assert_close(influence - influence.mean(), expected / scale)


@pytest.mark.parametrize("signal", [0.0, 0.5, 1.0, 3.0])
def test_the_closed_form_of_a_half_split_has_the_mean_it_states(signal: float) -> None:
    """E = G erf(G/2e): zero without signal, never above |G|."""
    error = 0.7
    one = torch.ones(1, dtype=torch.float64)

    def density(z: float) -> float:
        return math.exp(-z * z / 2) / math.sqrt(2 * math.pi)

    def expectation(power: int) -> float:
        def integrand(z: float) -> float:
            return float(_debiased((signal + error * z) * one, error * one)) ** power * density(z)

        return integrate.quad(integrand, -8, 8)[0]

    assert expectation(1) == pytest.approx(signal * math.erf(signal / (2 * error)), abs=1e-8)
    assert expectation(1) <= signal + 1e-12
    assert signal - expectation(1) < 0.5 * error
    if not signal:
        assert math.sqrt(expectation(2)) == pytest.approx(NULL_SPREAD * error, rel=1e-4)


def test_moments_give_the_sign_scale_of_the_rows() -> None:
    g = rows(400).reshape(400, -1)
    moments = gn.noise_scale_from_gradients(g)
    found, split = gn.sign_noise_scale(moments), gn.sign_noise_scale(g, splits=200)
    assert found.status is gn.Status.NO_INTERVAL
    assert float(found) == pytest.approx(float(split), rel=0.05)
    exact = gn.sign_noise_scale(replace(moments, population=400.0))
    assert float(exact) == pytest.approx(float(measure("sign", g, population="dataset")))
    assert exact.is_exact


def test_moments_without_signal_are_rarely_resolved() -> None:
    source, resolved = torch.Generator().manual_seed(3), 0
    for _ in range(300):
        moments = gn.noise_scale_from_gradients(draw(32, source, signal=0.0).reshape(32, -1))
        found = gn.sign_noise_scale(moments)
        resolved += found.status is gn.Status.NO_INTERVAL
        assert math.isnan(float(found)) == (found.status is gn.Status.SIGNAL_BELOW_NOISE)
    assert resolved / 300 < 0.05
    unknown = replace(moments, trace_cov_sq=math.nan)
    assert gn.sign_noise_scale(unknown).low < found.low


def test_moments_of_a_model_serve() -> None:
    model, loss_fn, batch = CORE[0].build()
    moments = gn.gradient_moments(model, loss_fn, batch, variance=True)
    rows = gn.per_sample_gradients(model, loss_fn, batch)
    found = gn.sign_noise_scale(rows, population="dataset")
    assert float(gn.sign_noise_scale(moments)) == pytest.approx(float(found), rel=1e-6)


def test_moments_without_variances_are_refused() -> None:
    toy = gn.toy.NoisyQuadratic(torch.eye(2), torch.ones(2))
    moments = gn.gradient_moments(toy.model(), toy.loss_fn, toy.sample(8, seed=0))
    with pytest.raises(gn.ArgumentError, match="`variance=True`"):
        gn.sign_noise_scale(moments)
