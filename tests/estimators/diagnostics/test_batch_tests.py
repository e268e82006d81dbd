"""Norm, inner product and orthogonality tests: closed forms, enumeration, then sampling."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

import gradnoise as gn
from gradnoise.estimators.diagnostics.batch_tests import Along
from gradnoise.statistics.quantile import quantile
from tests.clouds import MEAN, SCALES, draw
from tests.coverage import fewest, half_as_wide, holding, most


def rows(count: int = 50) -> Tensor:
    return draw(count, torch.Generator().manual_seed(0))


def truths(mean: Tensor, cov: Tensor) -> dict[str, float]:
    """The three batch sizes with θ = ν = 1, literally."""
    signal, along = float(mean @ mean), float(mean @ cov @ mean)
    trace = float(cov.trace())
    return {
        "norm": trace / signal,
        "inner": along / signal**2,
        "across": (trace - along / signal) / signal,
    }


def measured(moments: gn.GradientMoments, width: float = 1.0) -> dict[str, gn.Estimate]:
    return {
        "norm": gn.norm_test(moments, theta=width),
        "inner": gn.inner_product_test(moments, theta=width),
        "across": gn.orthogonality_test(moments, nu=width),
    }


def test_of_a_whole_population_they_are_the_formulas_and_exact() -> None:
    g = rows()
    found = measured(gn.noise_scale_from_gradients(g, population="dataset"))
    for name, truth in truths(g.mean(0), torch.cov(g.T)).items():
        assert float(found[name]) == pytest.approx(truth, rel=1e-12), name
        assert found[name].is_exact


def test_the_batches_that_pass_are_the_smallest_by_enumeration() -> None:
    """All batches with replacement of 3 samples: the bound of each test is met with equality."""
    g = rows(3)
    mean, signal = g.mean(0), float(g.mean(0) @ g.mean(0))
    size = 4
    batches = [g[list(pick)].mean(0) for pick in itertools.product(range(3), repeat=size)]
    noises = torch.stack(batches) - mean
    along = noises @ mean
    ratios = {
        "norm": float(noises.square().sum(1).mean()) / signal,
        "inner": float(along.square().mean()) / signal**2,
        "across": float((noises - along[:, None] * mean / signal).square().sum(1).mean()) / signal,
    }
    moments = gn.noise_scale_from_gradients(g, population="dataset")
    for name, ratio in ratios.items():  # Σ with 1/(n - 1) against 1/n of this population of three
        found = measured(moments, math.sqrt(ratio * 3 / 2))[name]
        assert float(found) == pytest.approx(size, rel=1e-12), name


def test_the_norm_test_is_the_sum_of_the_other_two() -> None:
    found = measured(gn.noise_scale_from_gradients(rows(), population=70))
    total = float(found["inner"]) + float(found["across"])
    assert total == pytest.approx(float(found["norm"]), rel=1e-10)


def test_widths_enter_as_their_squares() -> None:
    moments = gn.noise_scale_from_gradients(rows())
    one, half = measured(moments), measured(moments, 0.5)
    for name, found in one.items():
        for end in ("value", "low", "high"):
            assert getattr(half[name], end) == pytest.approx(4 * getattr(found, end)), name
    default = float(gn.norm_test(moments))
    assert default == pytest.approx(float(one["norm"]) / 0.81)
    assert float(gn.orthogonality_test(moments)) == pytest.approx(float(one["across"]) / 5.84**2)


@pytest.mark.parametrize("skewed", [False, True])
def test_the_noise_along_the_gradient_is_debiased(skewed: bool) -> None:
    source = torch.Generator().manual_seed(1)
    values, plain = [], []
    for _ in range(600):
        moments = gn.noise_scale_from_gradients(draw(12, source, skewed=skewed))
        values.append(Along.of(moments).value)
        plain.append(float(moments.slopes.var()))
    truth = float(MEAN @ (SCALES**2 * MEAN))
    for found, biased in ((values, False), (plain, True)):
        found = torch.tensor(found)
        z = float(found.mean() - truth) / (float(found.std()) / math.sqrt(600))
        assert (z > 4) if biased else (abs(z) < 3.5)


@pytest.mark.parametrize("share", [0.5, 0.2])
def test_what_is_left_of_the_bias_falls_with_the_square_of_the_samples(share: float) -> None:
    """Two kinds of samples: the expectation is a sum over how many there are of the first."""
    kinds = torch.tensor([[2.0, 1.0, 0.0], [0.5, -1.0, 1.0]], dtype=torch.float64)
    mean = share * kinds[0] + (1 - share) * kinds[1]
    gap = kinds[0] - kinds[1]
    truth = share * (1 - share) * float(gap @ mean) ** 2

    def bias(n: int) -> float:
        total = 0.0
        for k in range(n + 1):
            chance = math.comb(n, k) * share**k * (1 - share) ** (n - k)
            g = kinds[[0] * k + [1] * (n - k)]
            total += chance * Along.of(gn.noise_scale_from_gradients(g)).value
        return total - truth

    assert bias(64) == pytest.approx(bias(32) / 4, rel=0.15, abs=1e-12)
    assert abs(bias(32)) < 0.03 * truth


def influences(g: Tensor, functional: Any) -> Tensor:
    """n times the derivative of functional(mean, covariance) by the weight of every sample."""
    weights = torch.full((len(g),), 1 / len(g), dtype=torch.float64, requires_grad=True)
    mean = weights @ g / weights.sum()
    centred = g - mean
    cov = (weights[:, None] * centred).T @ centred / weights.sum()
    (found,) = torch.autograd.grad(functional(mean, cov), weights)
    return found


def test_errors_are_those_of_the_infinitesimal_jackknife() -> None:
    g, n, t = rows(400), 400, quantile(0.95, 399)
    moments = gn.noise_scale_from_gradients(g)
    signal = influences(g, lambda mean, cov: mean @ mean)
    numerators = {
        "inner": (influences(g, lambda mean, cov: (mean @ cov @ mean).sqrt()), True),
        "across": (
            influences(g, lambda mean, cov: cov.trace() - mean @ cov @ mean / (mean @ mean)),
            False,
        ),
    }
    found, along = measured(moments), Along.of(moments)
    size = float(moments.grad_sq_norm)
    values = {
        "inner": math.sqrt(along.value),
        "across": float(moments.trace_cov) - along.value / size,
    }
    for name, (influence, root) in numerators.items():
        pair = torch.cov(torch.stack([influence, signal])) / n
        for end in (found[name].low, found[name].high):  # the ends solve Fieller's equation
            ratio = math.sqrt(end) if root else end
            reach = pair[0, 0] - 2 * ratio * pair[0, 1] + ratio**2 * pair[1, 1]
            gap = values[name] - ratio * size
            assert abs(gap) == pytest.approx(t * math.sqrt(reach), rel=0.03), name


@pytest.mark.parametrize("skewed", [False, True])
def test_the_intervals_hold_as_often_as_stated(skewed: bool) -> None:
    """Coverages from 20 000 other sets of 100 rows: 94.8 to 95.8 %, but 88.6 % of the inner
    product test on exponential noise. Neither fewer nor more hits than these have in one set of
    seeds of 1000, each; intervals half as wide would be refused.
    """
    coverage = {"norm": 0.958, "inner": 0.886 if skewed else 0.948, "across": 0.949}
    source, runs = torch.Generator().manual_seed(2), 300
    truth = truths(MEAN, (SCALES**2).diag())
    every = [
        measured(gn.noise_scale_from_gradients(draw(100, source, skewed=skewed)))
        for _ in range(runs)
    ]
    for name, expected in coverage.items():
        found = [estimates[name] for estimates in every]
        assert fewest(runs, expected) <= holding(found, truth[name]) <= most(runs, expected), name
        assert holding(half_as_wide(found), truth[name]) < fewest(runs, expected), name


def test_without_second_slopes_the_interval_is_wider_and_the_value_the_same() -> None:
    moments = gn.noise_scale_from_gradients(rows(200))
    bare = replace(moments, second_slopes=None)
    for name, found in measured(bare).items():
        known = measured(moments)[name]
        assert float(found) == pytest.approx(float(known))
        assert found.low <= known.low
        assert found.high >= known.high
    assert measured(bare)["inner"].high > 1.5 * measured(moments)["inner"].high


def test_without_signal_they_have_bounds_and_no_value() -> None:
    source = torch.Generator().manual_seed(3)
    unbounded = 0
    for _ in range(60):
        found = measured(gn.noise_scale_from_gradients(draw(64, source) - MEAN))
        unbounded += all(math.isinf(e.high) for e in found.values())
        for estimate in found.values():
            assert estimate.is_resolved or math.isnan(float(estimate))
            assert estimate.is_resolved or estimate.low >= 0
        assert found["across"].low <= found["norm"].low
        assert found["norm"].is_resolved or found["across"].low > 0
    assert unbounded >= 52  # nominally 57 to 60


def test_a_gradient_of_rounding_alone_is_no_signal() -> None:
    g = rows()
    found = measured(gn.noise_scale_from_gradients(g - g.mean(0), population="dataset"))
    for estimate in found.values():
        assert estimate.status is gn.Status.SIGNAL_BELOW_NOISE
        assert math.isnan(float(estimate))


def test_two_samples_give_values_and_no_intervals() -> None:
    g = rows(2) * 0.1 + 1
    found = measured(gn.noise_scale_from_gradients(g, population=10))
    signal, along = truths(g.mean(0), torch.cov(g.T)), measured(gn.noise_scale_from_gradients(g))
    for name, estimate in found.items():
        assert estimate.status is gn.Status.NO_INTERVAL, name
        assert float(estimate) == pytest.approx(signal[name], rel=0.2), name
        assert along[name].status is gn.Status.NO_INTERVAL


def test_no_gradient_at_all_is_no_signal() -> None:
    for population in ("dataset", "distribution"):
        found = measured(gn.noise_scale_from_gradients(torch.zeros(8, 3), population=population))
        for estimate in found.values():
            assert math.isnan(float(estimate))
            assert estimate.low == 0


def test_one_parameter_has_no_noise_across_its_gradient() -> None:
    found = gn.orthogonality_test(
        gn.noise_scale_from_gradients(rows()[:, :1], population="dataset")
    )
    assert float(found) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("wrong", [0.0, -1.0, math.inf, math.nan])
def test_widths_must_be_positive(wrong: float) -> None:
    moments = gn.noise_scale_from_gradients(rows())
    with pytest.raises(gn.ArgumentError, match="`theta` must be positive"):
        gn.norm_test(moments, theta=wrong)
    with pytest.raises(gn.ArgumentError, match="`theta` must be positive"):
        gn.inner_product_test(moments, theta=wrong)
    with pytest.raises(gn.ArgumentError, match="`nu` must be positive"):
        gn.orthogonality_test(moments, nu=wrong)


def test_slopes_are_needed() -> None:
    moments = replace(gn.noise_scale_from_gradients(rows()), slopes=None)
    for test in (gn.inner_product_test, gn.orthogonality_test):
        with pytest.raises(gn.ArgumentError, match=r"hold no slopes.*gn\.diagnostics"):
            test(moments)
    assert gn.norm_test(moments).status is gn.Status.NO_INTERVAL
