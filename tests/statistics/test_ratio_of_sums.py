"""Ratios of sums and how far they move with the choice of the measurements."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

import gradnoise as gn
from gradnoise.statistics.ratio_of_sums import ratio_of_sums

RUN = [(8.0, 4.0), (9.0, 1.0), (7.0, 2.0), (6.0, 0.5)]


def known(value: float, stderr: float = 0.0) -> gn.Estimate:
    return gn.Estimate(value, value - 2 * stderr, value + 2 * stderr, 0.95, stderr, 100)


def ratio(
    pairs: list[tuple[float, float]],
    errors: tuple[float, float] = (0.0, 0.0),
    level: float = 0.95,
) -> gn.Estimate:
    return ratio_of_sums([(known(a, errors[0]), known(b, errors[1])) for a, b in pairs], level)


def test_the_value_is_the_ratio_of_sums() -> None:
    assert float(ratio(RUN)) == 30 / 7.5


def test_the_interval_is_the_jackknife_of_the_logarithm() -> None:
    tops, bottoms = np.array(RUN).T
    left = np.log((30 - tops) / (7.5 - bottoms))
    matter = 7.5**2 / (bottoms**2).sum()
    reach = math.exp(stats.t.ppf(0.95, matter - 1) * math.sqrt(3 * left.var()))
    found = ratio(RUN, level=0.9)
    assert (found.low, found.high) == pytest.approx((4 / reach, 4 * reach), rel=1e-12)
    assert (found.level, found.samples, found.is_resolved) == (0.9, 100, True)


def test_sampling_errors_widen_the_interval_as_if_all_were_one() -> None:
    found = ratio([(4.0, 2.0)] * 5, errors=(0.4, 0.1))
    reach = stats.t.ppf(0.975, 4) * math.hypot(0.1, 0.05)
    assert math.log(found.high / 2) == pytest.approx(reach, rel=1e-12)
    assert math.log(2 / found.low) == pytest.approx(reach, rel=1e-12)


@pytest.mark.parametrize("shares", [(1.0, 1.0, 1.0), (3.0, 1.0, 0.3), (0.2, 1.0, 1.0, 5.0, 2.0)])
def test_the_interval_holds_the_ratio_of_a_population_of_points(shares: tuple[float, ...]) -> None:
    """Points with gradients of several sizes, each with its own noise scale around 10."""
    source, covered, draws = np.random.default_rng(0), 0, 400
    for _ in range(draws):
        scales = (10 * np.exp(0.7 * source.standard_normal(len(shares)) - 0.7**2 / 2)).tolist()
        found = ratio([(s * b, s) for s, b in zip(shares, scales, strict=True)])
        covered += found.low <= 10 <= found.high
    assert 0.88 <= covered / draws <= 1.0


def test_one_pair_has_no_interval_and_two_a_very_wide_one() -> None:
    one = ratio([(8.0, 4.0)])
    assert (float(one), one.status) == (2.0, gn.Status.NO_INTERVAL)
    two = ratio([(8.0, 4.0), (9.0, 3.0)])
    assert two.low < 17 / 7 / 6
    assert two.high > 17 / 7 * 6


def test_a_weak_denominator_is_not_divided_by() -> None:
    assert float(ratio([(4.0, 2.0)] * 3 + [(4.0, -0.1)])) == pytest.approx(16 / 5.9)


def test_the_interval_is_open_where_one_pair_decides_the_sign() -> None:
    found = ratio([(4.0, 2.0), (4.0, -0.5), (4.0, -0.5)])
    assert (found.low, found.high) == (0.0, math.inf)
    assert float(found) == 12.0


def test_the_interval_is_nearly_open_where_one_pair_outweighs_all() -> None:
    found = ratio([(4.0, 2.0), (3e-9, 1e-9), (5e-9, 1e-9)])
    assert float(found) == pytest.approx(2.0)
    assert found.high > 1e3


@pytest.mark.parametrize(
    ("pairs", "status"),
    [
        ([(1.0, -1.0)], "SIGNAL_BELOW_NOISE"),
        ([(-1.0, 1.0)] * 3, "NOISE_BELOW_ERROR"),
        ([], "NO_INTERVAL"),
    ],
)
def test_sums_that_are_not_positive_have_no_ratio(
    pairs: list[tuple[float, float]], status: str
) -> None:
    found = ratio(pairs)
    assert math.isnan(float(found))
    assert found.status is gn.Status[status]
