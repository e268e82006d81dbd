"""Noise scales of sign and spectral descent: literal formulas, quadrature, then sampling."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from scipy import integrate
from torch import Tensor

import gradnoise as gn
from gradnoise.estimators.diagnostics.sign import NULL_SPREAD, _debiased, _sign_noise
from gradnoise.estimators.diagnostics.spectral import _spectral_noise
from tests.cases import CORE

ROWS, COLUMNS = 4, 6
SCALE = torch.linspace(0.5, 1.5, ROWS * COLUMNS).double().reshape(ROWS, COLUMNS)
MEAN = torch.zeros(ROWS, COLUMNS).double()
MEAN[0, 0], MEAN[1, 1], MEAN[2, 2] = 1.0, -0.6, 0.1


def draw(count: int, source: torch.Generator, signal: float = 1.0) -> Tensor:
    noise = torch.randn(count, ROWS, COLUMNS, generator=source, dtype=torch.float64)
    return signal * MEAN + SCALE * noise


def rows(count: int = 30) -> Tensor:
    return draw(count, torch.Generator().manual_seed(0))


def truth(kind: str) -> float:
    """For independent entries C is diagonal: sums of variances over the other side."""
    if kind == "sign":
        return float(SCALE.sum() / MEAN.abs().sum()) ** 2
    noise = SCALE.square().sum(1 if kind == "rows" else 0).sqrt().sum()
    return float(noise / torch.linalg.svdvals(MEAN).sum()) ** 2


def measure(kind: str, gradients: Tensor, **options: object) -> gn.Estimate:
    if kind == "sign":
        return gn.sign_noise_scale(gradients, **options)
    return gn.spectral_noise_scale(gradients, side=kind, **options)


KINDS = ("sign", "rows", "columns")


def test_of_a_whole_population_they_are_the_literal_formulas() -> None:
    g = rows()
    centred, mean = g - g.mean(0), g.mean(0)
    nuclear = float(torch.linalg.svdvals(mean).sum())
    literal = {"sign": float(g.std(0).sum() / mean.abs().sum()) ** 2}
    for side, form in (("rows", "nik,njk->ij"), ("columns", "nki,nkj->ij")):
        second = torch.einsum(form, centred, centred) / (len(g) - 1)
        root = float(torch.linalg.eigvalsh(second).clamp(min=0).sqrt().sum())
        literal[side] = (root / nuclear) ** 2
    for kind, value in literal.items():
        found = measure(kind, g, population="dataset")
        assert float(found) == pytest.approx(value, rel=1e-10), kind
        assert found.is_exact
    assert literal["rows"] != pytest.approx(literal["columns"], rel=0.05)


def test_sides_are_exchanged_by_transposition() -> None:
    g = rows()
    assert measure("rows", g) == measure("columns", g.mT)


def test_a_rank_deficient_covariance_is_no_obstacle() -> None:
    g = rows(5).repeat(1, 1, 1)
    g[:, 3] = 0
    found = measure("rows", g, population="dataset")
    assert float(found) == pytest.approx(float(measure("rows", g[:, :3], population="dataset")))
    assert math.isfinite(measure("columns", rows(4)).low)


def test_several_parameters_are_ratios_of_sums() -> None:
    g = rows(200)
    parts = {"a": g[:, :2], "b": g[:, 2:].numpy()}
    whole = measure("sign", g.reshape(200, -1))
    assert float(measure("sign", parts)) == pytest.approx(float(whole))
    exact = {"population": "dataset", "side": "rows"}
    both = float(gn.spectral_noise_scale({"a": g, "b": g}, **exact))
    assert both == pytest.approx(float(gn.spectral_noise_scale(g, **exact)))


def test_influences_on_the_noise_are_derivatives_by_the_weights() -> None:
    g = rows(12)
    weights = torch.full((12,), 1 / 12, dtype=torch.float64, requires_grad=True)
    centred = g - torch.einsum("n,nij->ij", weights, g) / weights.sum()
    sign = (torch.einsum("n,nij->ij", weights, centred**2) / weights.sum()).sqrt().sum()
    second = torch.einsum("n,nik,njk->ij", weights, centred, centred) / weights.sum()
    spectral = torch.linalg.eigvalsh(second).sqrt().sum()
    plain = g - g.mean(0)
    for value, noise, rows_ in (
        (sign, _sign_noise, plain.reshape(12, -1)),
        (spectral, _spectral_noise, plain),
    ):
        (expected,) = torch.autograd.grad(value, weights, retain_graph=True)
        found, influence = noise(rows_)
        scale = math.sqrt(12 / 11)  # Σ with 1/(n - 1)
        assert found == pytest.approx(scale * value.item(), rel=1e-12)
        torch.testing.assert_close(influence - influence.mean(), expected / scale)


@pytest.mark.parametrize("kind", KINDS)
def test_their_intervals_hold_the_truth(kind: str) -> None:
    source, runs, held, plain = torch.Generator().manual_seed(1), 150, 0, []
    resolved = []
    for _ in range(runs):
        g = draw(128, source)
        found = measure(kind, g)
        held += found.low <= truth(kind) <= found.high
        resolved += [float(found)] if found.is_resolved else []
        plain.append(float(measure(kind, g, population="dataset")))
    assert held / runs > 0.93
    assert len(resolved) > 0.9 * runs
    plain = torch.tensor(plain)
    assert float(plain.mean()) < 0.8 * truth(kind)  # noise taken for signal
    assert sum(resolved) / len(resolved) > float(plain.mean())


@pytest.mark.parametrize("kind", KINDS)
def test_without_signal_there_is_a_bound_and_no_value(kind: str) -> None:
    source, runs, bounded = torch.Generator().manual_seed(2), 150, 0
    for _ in range(runs):
        found = measure(kind, draw(32, source, signal=0.0))
        bounded += math.isfinite(found.high)
        assert found.is_resolved or math.isnan(float(found))
        assert found.low > 0
    assert bounded / runs < 0.06


@pytest.mark.parametrize("kind", KINDS)
def test_a_gradient_of_rounding_alone_is_no_signal(kind: str) -> None:
    g = rows()
    found = measure(kind, g - g.mean(0), population="dataset")
    assert found.status is gn.Status.SIGNAL_BELOW_NOISE


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


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: gn.spectral_noise_scale(rows(), side="left"), "`side` must be one of rows, col"),
        (lambda: gn.spectral_noise_scale(rows()[0], side="rows"), "must be of matrices"),
        (lambda: gn.sign_noise_scale(rows(3)), "at least 4 samples"),
        (lambda: gn.sign_noise_scale(rows(), splits=0), "`splits` must be a whole number"),
        (lambda: gn.sign_noise_scale(rows(), population=3), "`population` must be"),
        (lambda: gn.sign_noise_scale(rows(), level=2.0), "`level`"),
    ],
)
def test_what_does_not_fit_is_refused(call, message: str) -> None:
    with pytest.raises(gn.ArgumentError, match=message):
        call()
