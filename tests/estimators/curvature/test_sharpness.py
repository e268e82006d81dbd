"""λ and what the samples think of it."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

import gradnoise as gn
from gradnoise.estimators.curvature.extreme_eigenvalue import (
    Halves,
    sample_curvatures,
    sharpness_estimate,
)
from gradnoise.operators.hessian import Hessian
from gradnoise.problem.options import Options
from gradnoise.problem.problem import Problem
from tests import oracles
from tests.cases import CORE, Case, named


@pytest.mark.parametrize("case", CORE, ids=named)
def test_sharpness_is_the_largest_dense_eigenvalue(case: Case) -> None:
    model, loss_fn, batch = case.build()
    truth = torch.linalg.eigvalsh(oracles.dense(model, loss_fn, batch).hessian)
    pairs = gn.sharpness(model, loss_fn, batch, tol=1e-9)
    assert float(pairs.values) == pytest.approx(float(truth[-1]), rel=1e-8)
    assert pairs.converged
    profiled = gn.profile(model, loss_fn, batch, tol=1e-9, probes=2).sharpness
    assert float(profiled) == pytest.approx(float(truth[-1]), rel=1e-8)
    lowest = gn.sharpness(model, loss_fn, batch, which="SA", tol=1e-9)
    assert float(lowest.values) == pytest.approx(float(truth[0]), rel=1e-8)


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


def test_the_bias_of_a_part_is_taken_off_where_the_eigenvalue_stands_clear() -> None:
    """T4: the raw top eigenvalue of 48 samples is several standard errors too high."""
    toy, replicates = gn.toy.LinearRegression(torch.tensor([3.0, 1.5, 0.5]), torch.ones(3)), 60
    profiles = measured(toy, 48, replicates)
    raw = torch.tensor([raw_sharpness(toy, 48, seed) for seed in range(replicates)])
    values = torch.tensor([float(p.sharpness) for p in profiles])
    assert abs(values.mean() - 3.0) < 3 * values.std() / math.sqrt(replicates)
    assert abs(values.mean() - 3.0) < raw.mean() - 3.0
    covered = sum(p.sharpness.low <= 3.0 <= p.sharpness.high for p in profiles)
    assert covered / replicates > 0.8


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


def test_an_iteration_cut_short_says_so() -> None:
    model, loss_fn, batch = CORE[0].build()
    pairs = gn.sharpness(model, loss_fn, batch, max_iterations=2, tol=1e-12)
    assert not pairs.converged
    assert pairs.matvecs == 2


def test_no_bowl_has_no_curvature_noise_scale() -> None:
    toy = gn.toy.NoisyQuadratic(-torch.eye(2), torch.ones(2))
    (profile,) = measured(toy, 32, 1)
    assert profile.curvature_noise_scale.status is gn.Status.NEGATIVE_CURVATURE
    assert float(profile.stable_lr()) == math.inf


def test_uneven_batches_do_not_change_sharpness() -> None:
    model, loss_fn, (x, y) = CORE[0].build()
    whole = gn.sharpness(model, loss_fn, (x, y), tol=1e-9)
    parts = gn.sharpness(model, loss_fn, [(x[:5], y[:5]), (x[5:], y[5:])], tol=1e-9)
    assert float(parts.values) == pytest.approx(float(whole.values), rel=1e-8)


def test_bfloat16_finds_the_same_two_digits() -> None:
    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    x, y = torch.randn(64, 4), torch.randint(3, (64,))
    exact = float(gn.sharpness(model, nn.CrossEntropyLoss(), (x, y)).values)
    rough = gn.sharpness(model.bfloat16(), nn.CrossEntropyLoss(), (x.bfloat16(), y), tol=0.05)
    assert float(rough.values) == pytest.approx(exact, rel=0.03)


@pytest.mark.parametrize("converged", [True, False])
def test_halves_that_did_not_converge_give_no_bracket(converged: bool) -> None:
    model, loss_fn, batch = CORE[0].build()
    pairs = gn.sharpness(model, loss_fn, batch)
    halves = Halves(own=2.0, held_out=1.0, converged=converged)
    samples = Problem.open(model, loss_fn, batch, Options(population="distribution")).samples
    curvatures = torch.arange(float(samples.count))
    status = sharpness_estimate(pairs, curvatures, halves, samples, 0.95).status
    assert (status is gn.Status.NOT_CONVERGED) is not converged


def test_the_gauss_newton_matrix_has_its_own_modes() -> None:
    model, loss_fn, batch = CORE[0].build()
    truth = float(torch.linalg.eigvalsh(oracles.gauss_newton(model, loss_fn, batch))[-1])
    for hvp in ("auto", "kept", "fresh"):
        pairs = gn.sharpness(model, loss_fn, batch, operator="gauss-newton", hvp=hvp, tol=1e-9)
        assert float(pairs.values) == pytest.approx(truth, rel=1e-8)
    with pytest.raises(gn.ArgumentError, match="one of auto, kept, fresh; got 'finite'"):
        gn.sharpness(model, loss_fn, batch, operator="gauss-newton", hvp="finite")
    with pytest.raises(gn.ArgumentError, match="`operator` must be one of hessian, gauss-newton"):
        gn.sharpness(model, loss_fn, batch, operator="fisher")


def test_what_the_samples_leave_open_is_in_the_result() -> None:
    toy = gn.toy.LinearRegression(torch.tensor([3.0, 1.0, 0.2]), torch.ones(3))
    model, data = toy.model(), toy.sample(256, seed=0)
    found = gn.sharpness(model, toy.loss_fn, data, population="distribution")
    x, v = data[0], found.vectors[:, 0]
    quotients = (x @ v) ** 2  # vᵀH_iv with H_i = x_i x_iᵀ
    assert float(found.stderr) == pytest.approx(float(quotients.std()) / 16, rel=1e-9)
    profiled = gn.profile(model, toy.loss_fn, data, population="distribution", probes=2)
    assert found.estimate == profiled.sharpness
    assert found.estimate.low < found.held_out <= float(found.values) < found.estimate.high
    assert found.estimate.low < 3 < found.estimate.high
    assert (found.hvp, found.reason) == ("kept", gn.Hessian(model, toy.loss_fn, data).reason)


def test_the_whole_population_leaves_nothing_open() -> None:
    model, loss_fn, batch = CORE[0].build()
    for options in ({}, {"operator": "gauss-newton"}, {"hvp": "finite"}):
        found = gn.sharpness(model, loss_fn, batch, k=2, **options)
        assert found.stderr.tolist() == [0, 0]
        assert found.estimate.stderr == 0
        assert float(found.estimate) == float(found.values[0])
        assert found.estimate.high - found.estimate.low <= float(found.residuals[0]) * 1.01


def test_a_sampling_error_that_is_not_known_is_not_invented() -> None:
    model, loss_fn, batch = CORE[0].build()
    options: tuple[dict[str, Any], ...] = (
        {"operator": "gauss-newton"},
        {"hvp": "finite"},
        {"intervals": False},
    )
    for option in options:
        found = gn.sharpness(model, loss_fn, batch, population="distribution", **option)
        assert found.estimate.status is gn.Status.NO_INTERVAL
        assert math.isnan(float(found.stderr))
        assert math.isnan(found.held_out)


@pytest.mark.parametrize("which", ["SA", "LM", "BE"])
def test_every_end_has_its_bracket(which: str) -> None:
    model, loss_fn, batch = CORE[0].build()
    truth = oracles.dense(model, loss_fn, batch)
    found = gn.sharpness(
        model, loss_fn, batch, which=which, k=2, tol=1e-10, population="distribution"
    )
    for v, error in zip(found.vectors.T, found.stderr, strict=True):
        quotients = truth.hessians @ v @ v
        expected = float(quotients.std()) / len(quotients) ** 0.5
        assert float(error) == pytest.approx(expected, rel=1e-6)
    sign = -1 if float(found.values[0]) < 0 else 1
    assert sign * found.held_out < sign * float(found.values[0])
    assert found.estimate.low < found.held_out < found.estimate.high


def test_the_smallest_eigenvalue_is_the_largest_mirrored() -> None:
    toy = gn.toy.LinearRegression(torch.tensor([3.0, 1.0, 0.2]), torch.ones(3))
    options: dict[str, Any] = {"population": "distribution", "tol": 1e-10}
    model, data = toy.model(), toy.sample(128, seed=0)
    upper = gn.sharpness(model, toy.loss_fn, data, **options)
    lower = gn.sharpness(model, lambda m, b: -toy.loss_fn(m, b), data, which="SA", **options)
    assert lower.held_out == pytest.approx(-upper.held_out)
    one, other = upper.estimate, lower.estimate
    expected = (-one.value, -one.high, -one.low, one.stderr)
    assert (other.value, other.low, other.high, other.stderr) == pytest.approx(expected)


@pytest.mark.parametrize("which", ["LA", "SA", "LM", "BE"])
def test_crowded_eigenvalues_are_bracketed_at_every_end(which: str) -> None:
    toy = gn.toy.LinearRegression(torch.ones(30), torch.zeros(30))
    found = gn.sharpness(
        toy.model(), toy.loss_fn, toy.sample(256, 0), which=which, k=1, population="distribution"
    )
    assert abs(float(found.values[0]) - 1) > 0.3  # of the part
    assert found.estimate.low < 1 < found.estimate.high


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
