"""λ of the population from a part of it: brackets, coverage, and B_curv."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

import gradnoise as gn
from gradnoise.estimators.curvature.extreme_eigenvalue import (
    Halves,
    curvature_noise_scale,
    sample_curvatures,
    sharpness_estimate,
)
from gradnoise.operators.hessian import Hessian
from gradnoise.problem.options import Options
from gradnoise.problem.problem import Problem
from gradnoise.problem.samples import Samples
from tests import oracles
from tests.analytic import z_score
from tests.cases import CORE
from tests.coverage import fewest, half_as_wide, holding


def test_curvature_of_each_sample_along_the_sharpest_direction() -> None:
    model, loss_fn, batch = CORE[0].build()
    truth = oracles.dense(model, loss_fn, batch)
    pairs = gn.sharpness(model, loss_fn, batch, tol=1e-10)
    v = pairs.vectors[:, 0]
    found = sample_curvatures(Problem.open(model, loss_fn, batch), v)
    torch.testing.assert_close(found, truth.hessians @ v @ v, rtol=1e-9, atol=1e-12)
    profile = gn.profile(model, loss_fn, batch, tol=1e-10, probes=2)
    expected = float(found.var() / found.mean() ** 2)
    assert float(profile.curvature_noise_scale) == pytest.approx(expected, rel=1e-7)
    assert profile.curvature_noise_scale.is_exact


def measured(toy: Any, n: int, replicates: int) -> list[gn.Profile]:
    return [
        gn.profile(
            toy.model(), toy.loss_fn, toy.sample(n, seed), population="distribution", probes=2
        )
        for seed in range(replicates)
    ]


def raw_sharpness(toy: Any, n: int, seed: int) -> float:
    x, _ = toy.sample(n, seed)
    return float(torch.linalg.eigvalsh(x.T @ x / n)[-1])


REGRESSION = gn.toy.LinearRegression(torch.tensor([3.0, 1.5, 0.5]), torch.ones(3))


def top_of(inputs: Tensor) -> tuple[float, Tensor]:
    """The largest eigenvalue of XᵀX/n, and its vector."""
    values, vectors = torch.linalg.eigh(inputs.T @ inputs / len(inputs))
    return float(values[-1]), vectors[:, -1]


def written_out(inputs: Tensor, parts: tuple[Tensor, Tensor]) -> gn.Estimate:
    """λ of the distribution from samples and their halves, by dense eigenproblems."""
    value, vector = top_of(inputs)
    own, held_out = 0.0, 0.0
    for one, other in (parts, parts[::-1]):
        size, direction = top_of(one)
        own += size / 2
        held_out += float((other @ direction).square().mean()) / 2
    zero = torch.zeros(1, dtype=torch.float64)
    pairs = gn.Eigenpairs(zero + value, zero, vector[:, None], matvecs=0, converged=True)
    samples = Samples((inputs,), math.inf)
    curvatures = (inputs @ vector).square()
    return sharpness_estimate(pairs, curvatures, Halves(own, held_out), samples, 0.95)


@pytest.mark.parametrize("seed", range(4))
def test_the_estimate_of_a_model_is_that_of_matrices_written_out(seed: int) -> None:
    model, data = REGRESSION.model(), REGRESSION.sample(48, seed)
    options: dict[str, Any] = {"population": "distribution", "seed": seed, "tol": 1e-10}
    found = gn.sharpness(model, REGRESSION.loss_fn, data, **options).estimate
    halves = Samples((data,), math.inf).halves(seed)
    expected = written_out(data[0], tuple(half.batches[0][0] for half in halves))
    for end in ("value", "low", "high", "stderr"):
        assert getattr(found, end) == pytest.approx(getattr(expected, end), rel=1e-7), end


def test_the_bias_of_a_part_is_taken_off_where_the_eigenvalue_stands_clear() -> None:
    """Linear regression on 48 samples, whose raw top eigenvalue is several errors too high.

    |z| < 3.3 refuses an unbiased mean, and too few hits a coverage of 95 %, in one set of seeds of
    1000 each. Intervals half as wide would be refused.
    """
    runs, truth, found, raw = 800, 3.0, [], []
    for seed in range(runs):
        inputs, _ = REGRESSION.sample(48, seed)
        found.append(written_out(inputs, (inputs[:24], inputs[24:])))
        raw.append(top_of(inputs)[0])
    assert abs(z_score([float(estimate) for estimate in found], truth)) < 3.3
    assert z_score(raw, truth) > 4
    assert abs(sum(map(float, found)) / runs - truth) < sum(raw) / runs - truth
    assert holding(found, truth) >= fewest(runs)
    assert holding(half_as_wide(found), truth) < fewest(runs)


def test_without_a_gap_the_bracket_still_holds_the_truth() -> None:
    """Forty equal eigenvalues and 96 samples: λ of the part is far above 1."""
    toy = gn.toy.LinearRegression(torch.ones(40), torch.ones(40) / 40**0.5)
    for seed, p in enumerate(measured(toy, 96, 8)):
        assert raw_sharpness(toy, 96, seed) > 2
        assert p.sharpness.low < 1 < float(p.sharpness) < p.sharpness.high


def test_orthogonal_samples_do_not_make_the_curvature_vanish() -> None:
    inputs = 8 * torch.eye(64, dtype=torch.float64)[:16]
    toy = gn.toy.LinearRegression(torch.ones(64), torch.ones(64) / 8)
    data = (inputs, torch.zeros(16, dtype=torch.float64))
    p = gn.profile(toy.model(), toy.loss_fn, data, population="distribution", probes=2)
    assert p.sharpness.low <= 0 < p.sharpness.high
    assert p.sharpness.status is gn.Status.SIGNAL_BELOW_NOISE
    assert p.recommend().lr is None
    assert "not distinguishable from zero" in p.recommend().reasons[0]


def test_equal_curvatures_leave_nothing_to_doubt() -> None:
    toy = gn.toy.NoisyQuadratic(torch.diag(torch.tensor([4.0, 1.0])), torch.ones(2))
    (profile,) = measured(toy, 32, 1)
    assert float(profile.sharpness) == pytest.approx(4.0, rel=1e-6)
    assert profile.sharpness.stderr == pytest.approx(0, abs=1e-9)
    assert float(profile.curvature_noise_scale) == pytest.approx(0, abs=1e-12)


def test_a_model_of_one_parameter_has_halves_at_every_seed() -> None:
    toy = gn.toy.FlippedLogistic(0.3)
    for seed in range(8):
        data = toy.sample(32, seed)
        p = gn.profile(toy.model(), toy.loss_fn, data, population=100, probes=2, seed=seed)
        assert float(p.sharpness) == pytest.approx(0.25, rel=1e-12)
        assert float(p.curvature_noise_scale) == pytest.approx(0, abs=1e-12)


def test_no_bowl_has_no_curvature_noise_scale() -> None:
    toy = gn.toy.NoisyQuadratic(-torch.eye(2), torch.ones(2))
    (profile,) = measured(toy, 32, 1)
    assert profile.curvature_noise_scale.status is gn.Status.NEGATIVE_CURVATURE
    assert float(profile.stable_lr()) == math.inf


def test_the_curvature_noise_scale_has_no_unit() -> None:
    model, loss_fn, batch = CORE[0].build()
    moments = gn.gradient_moments(model, loss_fn, batch, population="distribution")
    curvatures = 1 + torch.randn(64, generator=torch.Generator().manual_seed(0)).double() ** 2
    found = [curvature_noise_scale(unit * curvatures, moments) for unit in (1.0, 1e-100, 1e100)]
    expected = float(curvatures.var() / curvatures.mean() ** 2)
    for estimate in found:
        assert float(estimate) == pytest.approx(expected, rel=0.1)
        ends = estimate.low, float(estimate), estimate.high
        assert ends == pytest.approx((found[0].low, float(found[0]), found[0].high), rel=1e-9)


@pytest.mark.parametrize("converged", [True, False])
def test_halves_that_did_not_converge_give_no_bracket(converged: bool) -> None:
    model, loss_fn, batch = CORE[0].build()
    pairs = gn.sharpness(model, loss_fn, batch)
    halves = Halves(mean=2.0, held_out=1.0, converged=converged)
    samples = Problem.open(model, loss_fn, batch, Options(population="distribution")).samples
    curvatures = torch.arange(float(samples.count))
    status = sharpness_estimate(pairs, curvatures, halves, samples, 0.95).status
    assert (status is gn.Status.NOT_CONVERGED) is not converged


def test_limits_hold_for_the_halves_too(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    start = Hessian._start

    def counted(self: Hessian, problem: Problem, *args: Any, **options: Any) -> None:
        start(self, problem, *args, **options)
        seen.append((options["hvp"], options["memory_budget"]))

    monkeypatch.setattr(Hessian, "_start", counted)
    model, loss_fn, batch = CORE[0].build()
    found = gn.sharpness(
        model,
        loss_fn,
        batch,
        population="distribution",
        hvp="fresh",
        memory_budget=20_000,
        max_iterations=3,
        tol=1e-12,
    )
    assert seen == [("fresh", 20_000), ("fresh", 10_000), ("fresh", 10_000)]
    assert found.matvecs <= 3 * 3 + 2
    assert found.estimate.status is gn.Status.NOT_CONVERGED


def test_the_curvature_noise_scale_of_weighted_samples_covers() -> None:
    """Curvatures that grow with the weight, along one direction, weights 0.2, 1 and 3."""
    kinds = torch.tensor([[0.2, 0.5], [1.0, 1.0], [3.0, 2.0]], dtype=torch.float64)
    weight, curvature = kinds.T
    top = float((weight * curvature).sum() / weight.sum())
    known = float((weight * (curvature - top)).square().mean() / weight.mean() ** 2) / top**2
    source = torch.Generator().manual_seed(0)
    covered = 0
    for _ in range(400):
        w, h = kinds[torch.randint(3, (300,), generator=source)].T
        shares = w / w.mean()
        mean = (shares * h).mean()
        plain = gn.noise_scale_from_gradients(torch.randn(300, 2, generator=source))
        found = curvature_noise_scale(
            shares * h - (shares - 1) * mean, replace(plain, shares=shares)
        )
        covered += found.low <= known <= found.high
    assert fewest(400) <= covered
