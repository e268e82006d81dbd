"""The influences of samples on the cosine between H and Σ, held to dense matrices."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import gradnoise as gn
from gradnoise.estimators.covariance.cosine import (
    Influences,
    overlap,
    population_norm,
    spread_over_samples,
)
from gradnoise.estimators.covariance.ranks import square_influences
from gradnoise.estimators.covariance.spectrum import noise_spectrum
from gradnoise.linalg.eigen_options import EigenOptions
from gradnoise.moments.measure import stream
from gradnoise.per_sample.choice import choose
from gradnoise.problem.problem import Problem
from gradnoise.statistics.interval import symmetric
from tests import oracles
from tests.analytic import matrices, replicates, z_score
from tests.cases import CORE
from tests.clouds import every_sample
from tests.coverage import fewest, holding


@pytest.mark.parametrize("k", [1, 43])
def test_influences_are_those_of_the_dense_matrices(k: int) -> None:
    """All eight sign vectors of four samples; of ‖H‖² where nothing is left to chance, k = P."""
    model, loss_fn, (x, y) = CORE[0].build()
    batch = x[:4], y[:4]
    dense = oracles.dense(model, loss_fn, batch)
    h, sigma, gaps = dense.hessian, dense.covariance, dense.gradients - dense.gradients.mean(0)
    assert k in (1, len(h))
    problem = Problem.open(model, loss_fn, batch)
    with problem.guard():
        engine = choose(problem.objective, batch, "auto")
        moments = stream(problem, engine)
        aim = EigenOptions(k=min(k, 2), tol=1e-10, seed=0, memory_budget=2**30)
        spectrum = noise_spectrum(problem, engine, moments, aim, "gram")
        hessian = gn.Hessian.of(problem, hvp="kept")
        rows = gn.PerSampleGradients.of(problem, engine=engine)
        pairs = gn.lanczos(hessian, k=k, tol=1e-10)
        along = rows.along(pairs.vectors)
        found = Influences.measure(hessian, rows, pairs, along, spectrum, seed=0)
    own = ((gaps @ h) * gaps).sum(1) + (dense.hessians * sigma).sum((1, 2))
    torch.testing.assert_close(found.trace.mean(0), own, rtol=1e-7, atol=1e-9)
    if k == len(h):
        squares = 2 * (dense.hessians * h).sum((1, 2))
        torch.testing.assert_close(found.hessian_sq.mean(0), squares, rtol=1e-6, atol=1e-8)
        assert float(found.traces.abs().max()) < 1e-8


def test_the_noise_of_random_directions_is_taken_off_the_spread() -> None:
    truth = torch.randn(400, dtype=torch.float64)
    noisy = truth + 2 * torch.randn(8, 400, dtype=torch.float64) + torch.randn(8, 1).double()
    assert spread_over_samples(noisy) == pytest.approx(float(truth.var()), rel=0.15)
    assert float(noisy.mean(0).var()) > 1.35 * float(truth.var())
    assert spread_over_samples(truth.expand(8, -1)) == pytest.approx(float(truth.var()))


def exact(inputs: Tensor, gradients: Tensor) -> tuple[Tensor, Influences]:
    """H and the influences of samples with H_i = x_ix_iᵀ, nothing left to random directions."""
    hessians = inputs[:, :, None] * inputs[:, None]
    h, sigma = hessians.mean(0), torch.cov(gradients.T)
    gaps, centred = hessians - h, gradients - gradients.mean(0)
    trace = ((centred @ h) * centred).sum(1) + (hessians * sigma).sum((1, 2))
    spread = gaps.square().sum() / (len(inputs) - 1)
    return h, Influences(
        trace=trace.expand(2, -1),
        hessian_sq=2 * (hessians * h).sum((1, 2)).expand(2, -1),
        spread=spread.expand(2),
        traces=torch.zeros(2),
    )


def known(value: float) -> gn.Estimate:
    return symmetric(value, 0.0, level=0.95, samples=1)


@pytest.mark.parametrize("size", [3, 5])
def test_the_square_of_the_norm_is_unbiased_over_all_samples_of_a_population(size: int) -> None:
    inputs = torch.randn(7, 3, dtype=torch.float64)
    truth = float((inputs.T @ inputs / 7).square().sum())
    found, plain = [], []
    for sample in every_sample(inputs, size):
        h, influences = exact(sample, sample)
        moments = gn.noise_scale_from_gradients(sample, population=7)
        factor, spread = moments.sampling_factor, float(influences.spread[0])
        norm = population_norm(known(float(h.norm())), influences, moments)
        square = float(h.square().sum()) - factor * spread
        assert math.isnan(float(norm)) if square < 0 else float(norm) ** 2 == pytest.approx(square)
        found.append(square)
        plain.append(float(h.square().sum()))
    assert math.fsum(found) / len(found) == pytest.approx(truth, rel=1e-12)
    assert math.fsum(plain) / len(plain) > 1.05 * truth


def test_intervals_of_norm_and_cosine_hold_on_linear_regression() -> None:
    """That of the cosine is wide, which is near its end 1; half as wide it holds still."""
    h, sigma = matrices()
    norms, cosines = [], []
    for replicate in replicates():
        gradients = replicate.inputs * replicate.slopes[:, None]
        mean, influences = exact(replicate.inputs, gradients)
        moments, spectrum = replicate.moments, replicate.spectrum
        norm = population_norm(known(float(mean.norm())), influences, moments)
        trace = known(float((mean * torch.cov(gradients.T)).sum()))
        cosines.append(
            overlap(
                *(trace, norm, replicate.dimensions.trace_sq),
                moments=moments,
                influences=influences,
                squares=square_influences(moments, spectrum),
                probe_variances=(0.0, 0.0, 0.0),
            )
        )
        norms.append(norm)
    runs, size = len(norms), float(h.norm())
    assert holding(norms, size) >= fewest(runs)
    assert abs(z_score([float(norm) ** 2 for norm in norms], size**2)) < 3.3
    truth = float((h * sigma).sum()) / size / float(sigma.norm())
    assert holding(cosines, truth) >= fewest(runs, 0.99)
    assert all(-1 <= e.low <= float(e) <= e.high <= 1 for e in cosines if e.is_resolved)


def test_the_cosine_is_the_quotient_and_nothing_where_a_part_vanishes() -> None:
    moments = gn.noise_scale_from_gradients(torch.eye(3), population="dataset")
    options: Any = {"moments": moments, "influences": None, "squares": None}
    errors = (0.01, 0.04, 0.09)  # variances of tr(HΣ), ‖H‖² and tr(Σ²)
    found = overlap(known(1.5), known(2.0), known(4.0), probe_variances=errors, **options)
    assert float(found) == pytest.approx(1.5 / 4)
    slopes = 1 / 4, -1.5 / 4 / (2 * 4), -1.5 / 4 / (2 * 4)
    variance = sum(slope**2 * error for slope, error in zip(slopes, errors, strict=True))
    assert found.stderr == pytest.approx(math.sqrt(variance))
    for parts in ((1.0, 0.0, 1.0), (1.0, 1.0, -1.0), (1.0, math.nan, 1.0)):
        none = overlap(*map(known, parts), probe_variances=errors, **options)
        assert none.status is gn.Status.SIGNAL_BELOW_NOISE
        assert (none.low, none.high) == (-1, 1)
    beyond = overlap(known(9.0), known(1.0), known(1.0), probe_variances=(0.0,) * 3, **options)
    assert float(beyond) == 1
