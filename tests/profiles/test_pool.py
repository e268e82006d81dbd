"""Several measurements of one run as ratios of sums."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from scipy import stats

import gradnoise as gn
from tests.numbers import rows, same
from tests.reports import toy_profile


@dataclass(frozen=True)
class At:
    """One measurement: numbers alone."""

    trace_cov: gn.Estimate
    grad_sq_norm: gn.Estimate


@dataclass(frozen=True)
class Curved(At):
    trace_hessian_cov: gn.Estimate
    grad_curvature: gn.Estimate
    sharpness: gn.Estimate


def known(value: float, stderr: float = 0.0) -> gn.Estimate:
    return gn.Estimate(value, value - 2 * stderr, value + 2 * stderr, 0.95, stderr, 100)


def at(trace: float, signal: float, errors: tuple[float, float] = (0.0, 0.0)) -> At:
    return At(known(trace, errors[0]), known(signal, errors[1]))


def curved(simple: float, hessian: float) -> Curved:
    return Curved(known(simple), known(1.0), known(hessian), known(1.0), known(3.0))


RUN = [(8.0, 4.0), (9.0, 1.0), (7.0, 2.0), (6.0, 0.5)]


def test_noise_scales_are_ratios_of_sums() -> None:
    pooled = gn.pool([at(*pair) for pair in RUN])
    assert float(pooled.simple_noise_scale) == 30 / 7.5
    parts = Curved(known(1.0), known(1.0), known(6.0), known(2.0), known(5.0))
    assert float(gn.pool([*pooled.members, parts, curved(1.0, 4.0)]).noise_scale) == 10 / 3


def test_the_interval_is_the_jackknife_of_the_logarithm() -> None:
    tops, bottoms = np.array(RUN).T
    left = np.log((30 - tops) / (7.5 - bottoms))
    stderr = math.sqrt(3 * left.var())
    found = gn.pool([at(*pair) for pair in RUN], level=0.9).simple_noise_scale
    matter = 7.5**2 / (bottoms**2).sum()
    reach = math.exp(stats.t.ppf(0.95, matter - 1) * stderr)
    assert (found.low, found.high) == pytest.approx((4 / reach, 4 * reach), rel=1e-12)
    assert (found.level, found.samples, found.is_resolved) == (0.9, 100, True)


def test_sampling_errors_widen_the_interval_as_if_all_were_one() -> None:
    pooled = gn.pool([at(4.0, 2.0, errors=(0.4, 0.1)) for _ in range(5)]).simple_noise_scale
    reach = stats.t.ppf(0.975, 4) * math.hypot(0.1, 0.05)
    assert math.log(pooled.high / 2) == pytest.approx(reach, rel=1e-12)
    assert math.log(2 / pooled.low) == pytest.approx(reach, rel=1e-12)


@pytest.mark.parametrize("shares", [(1.0, 1.0, 1.0), (3.0, 1.0, 0.3), (0.2, 1.0, 1.0, 5.0, 2.0)])
def test_the_interval_holds_the_ratio_of_a_population_of_points(shares: tuple[float, ...]) -> None:
    """Points with gradients of several sizes, each with its own noise scale around 10."""
    source, covered, draws = np.random.default_rng(0), 0, 400
    for _ in range(draws):
        scales = (10 * np.exp(0.7 * source.standard_normal(len(shares)) - 0.7**2 / 2)).tolist()
        found = gn.pool([at(s * b, s) for s, b in zip(shares, scales, strict=True)])
        covered += found.simple_noise_scale.low <= 10 <= found.simple_noise_scale.high
    assert 0.88 <= covered / draws <= 1.0


def test_one_measurement_has_no_interval_and_two_a_very_wide_one() -> None:
    (one,) = (gn.pool([at(8.0, 4.0)]).simple_noise_scale,)
    assert (float(one), one.status) == (2.0, gn.Status.NO_INTERVAL)
    two = gn.pool([at(8.0, 4.0), at(9.0, 3.0)]).simple_noise_scale
    assert two.low < 17 / 7 / 6
    assert two.high > 17 / 7 * 6


def test_a_weak_gradient_is_not_divided_by() -> None:
    weak = gn.pool([at(4.0, 2.0), at(4.0, 2.0), at(4.0, 2.0), at(4.0, -0.1)])
    assert float(weak.simple_noise_scale) == pytest.approx(16 / 5.9)
    assert math.isnan(weak.steadiness)


def test_an_interval_is_open_where_one_measurement_decides_the_sign() -> None:
    found = gn.pool([at(4.0, 2.0), at(4.0, -0.5), at(4.0, -0.5)]).simple_noise_scale
    assert (found.low, found.high) == (0.0, math.inf)
    assert float(found) == 12.0


def test_an_interval_is_nearly_open_where_one_measurement_outweighs_all() -> None:
    found = gn.pool([at(4.0, 2.0), at(3e-9, 1e-9), at(5e-9, 1e-9)]).simple_noise_scale
    assert float(found) == pytest.approx(2.0)
    assert found.high > 1e3


@pytest.mark.parametrize(
    ("trace", "signal", "status"),
    [(1.0, -1.0, "SIGNAL_BELOW_NOISE"), (-1.0, 1.0, "NOISE_BELOW_ERROR")],
)
def test_sums_that_are_not_positive_have_no_ratio(trace: float, signal: float, status: str) -> None:
    found = gn.pool([at(trace, signal)] * 3)
    assert math.isnan(float(found.simple_noise_scale))
    assert found.simple_noise_scale.status is gn.Status[status]
    assert found.confidence == "none"


def test_what_was_not_measured_is_not_a_number() -> None:
    pooled = gn.pool([at(*pair) for pair in RUN])
    assert pooled.noise_scale.status is gn.Status.NO_INTERVAL
    assert math.isnan(float(pooled.noise_scale))
    assert all(map(math.isnan, (*pooled.sharpness, pooled.agreement)))
    assert pooled.confidence == "rough"


def test_confidence_is_good_where_the_last_agree_and_both_noise_scales_do() -> None:
    steady = [curved(100.0, 1.0), *(curved(b, b) for b in (10.0, 11.0, 12.0))]
    assert gn.pool(steady[1:]).confidence == "good"
    assert gn.pool([*steady, curved(30.0, 30.0)]).confidence == "rough"
    assert gn.pool([curved(10.0, 21.0)] * 3).confidence == "rough"
    assert gn.pool([curved(10.0, 19.0)] * 3).confidence == "good"
    assert gn.pool([curved(10.0, 10.0)] * 2).confidence == "rough"


def test_profiles_noise_scales_and_moments_can_be_pooled() -> None:
    profile = toy_profile()
    toy = gn.toy.LinearRegression(torch.tensor([3.0, 2.0, 1.0]), torch.ones(3), noise=0.5)
    model, data = toy.model(), toy.sample(200, seed=0)
    scale = gn.noise_scale(model, toy.loss_fn, data)
    moments = gn.gradient_moments(model, toy.loss_fn, data)
    pooled = gn.pool(iter([profile, scale, moments]))
    assert float(pooled.simple_noise_scale) == pytest.approx(float(profile.simple_noise_scale))
    assert float(pooled.noise_scale) == pytest.approx(float(profile.noise_scale), rel=0.05)
    assert pooled.sharpness == (float(profile.sharpness),) * 2


def test_the_report_names_the_noise_scales_and_the_confidence() -> None:
    text = str(gn.pool([curved(10.0, 11.0)] * 3))
    assert "3 measurements along a run; confidence: good" in text
    assert "B_simple = Σ trΣ/Σ|G|²" in text
    assert "3.00 to 3.00 along the run" in text


def test_intervals_of_moments_carry_over() -> None:
    moments = gn.noise_scale_from_gradients(rows())
    pooled = gn.pool([moments] * 3)
    assert pooled.simple_noise_scale.low < float(moments.simple_noise_scale)
    same(gn.pool([moments] * 3).simple_noise_scale, pooled.simple_noise_scale)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([], "`profiles` is empty; measure at several points"),
        ([3.0], "must hold profiles, noise scales or gradient moments; got float without `trace"),
    ],
)
def test_what_cannot_be_pooled_is_refused(members: list[object], message: str) -> None:
    with pytest.raises(gn.ArgumentError, match=message):
        gn.pool(members)


def test_measurements_of_other_runs_are_refused() -> None:
    profile = toy_profile()
    for change in ({"metric": "optimizer"}, {"population": 7.0}, {"parameters": 9}):
        with pytest.raises(gn.ArgumentError, match=f"of one run.*`{next(iter(change))}`"):
            gn.pool([profile, replace(profile, **change)])


def test_a_level_is_a_coverage() -> None:
    with pytest.raises(gn.ArgumentError, match="coverage between 0 and 1"):
        gn.pool([at(1.0, 1.0)], level=95)
