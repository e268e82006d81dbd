"""Ranks of Σ that count large eigenvalues: enumeration, then flat noise."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

import gradnoise as gn
from gradnoise.estimators.covariance.ranks import Dimensions, square_influences
from gradnoise.estimators.covariance.spectrum import _written_out
from gradnoise.linalg.eigen_options import EigenOptions
from gradnoise.problem.samples import Samples
from tests.analytic import matrices, replicates, z_score
from tests.coverage import fewest, half_as_wide, holding


def plain(rows: Tensor) -> tuple[float, Tensor]:
    """tr(Σ̂²) and ‖g_i - ḡ‖², literally."""
    centred = rows - rows.mean(0)
    square = float((centred @ centred.T).square().sum()) / (len(rows) - 1) ** 2
    return square, centred.square().sum(1)


def test_more_parameters_than_samples_and_flat_noise() -> None:
    """Σ = I of 200 dimensions from 40 samples, whose Σ̂ has rank 39."""
    toy = gn.toy.NoisyQuadratic(torch.eye(200), torch.zeros(200))
    data = toy.sample(40, seed=1)
    options = {"population": "distribution", "hessian": False, "tol": 1e-2}
    for method in ("gram", "lanczos"):
        found = gn.covariance(toy.model(), toy.loss_fn, data, method=method, **options)
        assert len(found.eigenvalues) == 10
        assert float(found.eigenvalues[0]) > 5
        assert found.top_eigenvalue.low < 1 < float(found.top_eigenvalue)
        assert found.participation_ratio.low < 200 < found.participation_ratio.high
        assert found.participation_ratio.low > 39  # not fooled by the rank of Σ̂
        assert found.effective_rank.low < 200 < found.effective_rank.high


def test_the_influence_on_the_square_is_its_derivative_by_the_weights() -> None:
    """Where all was measured nothing is taken out of c_iᵀΣ̂c_i: n times d tr(Σ²)/dw_i."""
    rows = torch.randn(9, 3, dtype=torch.float64)
    weights = torch.full((9,), 1 / 9, dtype=torch.float64, requires_grad=True)
    centred = rows - weights @ rows / weights.sum()
    sigma = (weights[:, None] * centred).T @ centred / weights.sum()
    (expected,) = torch.autograd.grad(sigma.square().sum(), weights)
    moments = gn.noise_scale_from_gradients(rows, population="dataset")
    spectrum = _written_out(rows, EigenOptions(k=3, seed=0, memory_budget=2**30), split=False)
    found = square_influences(moments, spectrum)
    torch.testing.assert_close(found, 9 / 8 * expected, rtol=1e-10, atol=1e-12)


def test_a_sample_does_not_count_by_its_own_part_of_the_covariance() -> None:
    """tr(Σ²) of pairs of different samples: without ‖c_i‖⁴/(n - 1)."""
    rows = torch.randn(9, 3, dtype=torch.float64)
    centred = rows - rows.mean(0)
    products = (centred @ centred.T).square()
    expected = 2 * (products.sum(1) - products.diagonal()) / 8
    moments = gn.noise_scale_from_gradients(rows)
    spectrum = _written_out(rows, EigenOptions(k=3, seed=0, memory_budget=2**30), split=True)
    found = square_influences(moments, spectrum)
    torch.testing.assert_close(found, expected - expected.mean(), rtol=1e-9, atol=1e-12)


def test_squares_and_the_largest_eigenvalue_are_unbiased_and_sums_bracketed() -> None:
    """|z| < 3.3 refuses an unbiased mean in one set of seeds of 1000; z > 2 passes one of 44."""
    _, sigma = matrices()
    values = torch.linalg.eigvalsh(sigma).flip(0)
    found = [replicate.dimensions for replicate in replicates()]
    assert abs(z_score([float(f.trace_sq) for f in found], float(sigma.square().sum()))) < 3.3
    assert abs(z_score([float(f.top_eigenvalue) for f in found], float(values[0]))) < 3.3
    spectra = [replicate.spectrum for replicate in replicates()]
    above = z_score([float(s.pairs.values[0]) for s in spectra], float(values[0]))
    assert above > 2  # λ_max of Σ̂ is too large, and was corrected
    for j in (1, 2):
        below = z_score([float(s.held_out[:j].sum()) for s in spectra], float(values[:j].sum()))
        assert below < -2


@pytest.mark.parametrize(
    ("name", "coverage"),
    [
        ("trace_sq", 0.88),  # as docs/theory/covariance.md says of 96 samples
        ("top_eigenvalue", 0.95),
        ("effective_rank", 0.95),
        ("participation_ratio", 0.95),
    ],
)
def test_intervals_hold_the_truth_of_linear_regression(name: str, coverage: float) -> None:
    """Nor would intervals half as wide, so that they are not merely wide."""
    _, sigma = matrices()
    trace, square = float(sigma.trace()), float(sigma.square().sum())
    top = float(torch.linalg.eigvalsh(sigma)[-1])
    truth = {
        "trace_sq": square,
        "top_eigenvalue": top,
        "effective_rank": trace / top,
        "participation_ratio": trace**2 / square,
    }[name]
    found = [getattr(replicate.dimensions, name) for replicate in replicates()]
    assert holding(found, truth) >= fewest(len(found), coverage)
    assert holding(half_as_wide(found), truth) < fewest(len(found), coverage)


def test_the_ends_of_the_effective_rank_are_those_of_the_bracket_of_the_eigenvalue() -> None:
    """trΣ/λ of the smallest λ is the upper end, of the largest λ with its residual the lower."""
    moments, spectrum = replicates()[0].moments, replicates()[0].spectrum
    samples = Samples((replicates()[0].inputs,), math.inf)
    usual = Dimensions.of(moments, spectrum, samples).effective_rank
    assert spectrum.halves is not None
    halves = replace(spectrum.halves, held_out=spectrum.halves.held_out / 2)
    lower = Dimensions.of(moments, replace(spectrum, halves=halves), samples).effective_rank
    assert lower.high > 1.8 * usual.high
    pairs = replace(spectrum.pairs, residuals=spectrum.pairs.values)
    larger = Dimensions.of(moments, replace(spectrum, pairs=pairs), samples).effective_rank
    assert 1 <= larger.low < usual.low
    assert larger.high == pytest.approx(usual.high)


def test_three_samples_of_more_do_not_tell_the_ranks() -> None:
    rows = torch.randn(3, 5, dtype=torch.float64)
    moments = gn.noise_scale_from_gradients(rows)
    spectrum = _written_out(rows, EigenOptions(k=2, seed=0, memory_budget=2**30), split=True)
    found = Dimensions.of(moments, spectrum, Samples((rows,), math.inf))
    assert found.top_eigenvalue.status is gn.Status.NO_INTERVAL
    for estimate in (found.trace_sq, found.participation_ratio):
        assert estimate.status is gn.Status.NOISE_BELOW_ERROR
        assert math.isnan(float(estimate))
        assert estimate.high == math.inf
