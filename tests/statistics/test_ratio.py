"""Ratios: Fieller's equation, its coverage, and the correction for skewness."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from gradnoise.statistics.estimate import Status
from gradnoise.statistics.interval import with_skew
from gradnoise.statistics.quantile import quantile
from gradnoise.statistics.ratio import ratio
from gradnoise.statistics.skew import Skew

INF, NAN = math.inf, math.nan


def fraction(numerator, denominator, variances, covariance=0.0, **options):
    settings = {"level": 0.95, "samples": 100, **options}
    return ratio(numerator, denominator, variances=variances, covariance=covariance, **settings)


def of_pair(a: list[float], b: list[float]) -> Skew:
    return Skew.of(torch.tensor([a, b], dtype=torch.float64))


class TestRatio:
    @pytest.mark.parametrize(
        ("parts", "variances", "covariance"),
        [
            ((6.0, 3.0), (0.04, 0.01), 0.0),
            ((6.0, 3.0), (0.25, 0.25), 0.1),
            ((6.0, 3.0), (0.25, 0.25), -0.1),
            ((100.0, 0.5), (25.0, 1e-3), 0.05),
            ((6.0, 3.0), (0.0, 0.25), 0.0),
            ((6.0, 3.0), (0.25, 0.0), 0.0),
        ],
    )
    def test_a_bound_lies_t_standard_errors_from_fitting(self, parts, variances, covariance):
        found = fraction(*parts, variances, covariance)

        assert found.is_resolved
        assert float(found) == parts[0] / parts[1]
        assert found.low < found.value < found.high
        for bound in (found.low, found.high):
            miss = parts[0] - bound * parts[1]
            error = math.sqrt(variances[0] - 2 * bound * covariance + bound**2 * variances[1])
            assert abs(miss) / error == pytest.approx(1.959964, abs=1e-5)

    def test_fewer_degrees_of_freedom_widen_it(self):
        wide = fraction(6.0, 3.0, (0.04, 0.01), freedom=3)
        narrow = fraction(6.0, 3.0, (0.04, 0.01))

        assert wide.low < narrow.low < narrow.high < wide.high

    @pytest.mark.parametrize(("numerator", "value"), [(6.0, 2.0), (0.0, 0.0)])
    def test_exact_parts_make_it_exact(self, numerator, value):
        found = fraction(numerator, 3.0, (0.0, 0.0))

        assert found.is_exact
        assert (found.value, found.stderr, found.status) == (value, 0.0, Status.RESOLVED)

    @pytest.mark.parametrize("covariance", [0.0, 0.5, -0.5])
    def test_a_weak_denominator_leaves_a_lower_bound_only(self, covariance):
        found = fraction(60.0, 0.5, (1.0, 1.0), covariance)

        assert found.status is Status.SIGNAL_BELOW_NOISE
        assert math.isnan(float(found))
        assert 0 < found.low < found.high == INF
        error = math.sqrt(1 - 2 * found.low * covariance + found.low**2)
        assert abs(60 - found.low * 0.5) / error == pytest.approx(1.959964, abs=1e-5)

    def test_it_opens_exactly_where_the_denominator_meets_zero(self):
        t = quantile(0.95, INF)

        assert fraction(60.0, 1.001 * t, (1.0, 1.0)).high < INF
        assert fraction(60.0, 0.999 * t, (1.0, 1.0)).high == INF

    def test_two_weak_parts_leave_nothing(self):
        found = fraction(0.1, 0.1, (1.0, 1.0))

        assert (found.low, found.high) == (0.0, INF)
        assert found.status is Status.SIGNAL_BELOW_NOISE

    def test_a_weak_numerator_lets_the_interval_reach_zero(self):
        found = fraction(1.0, 100.0, (1.0, 1.0))

        assert found.low == 0
        assert 0.01 < found.high < 0.04

    @pytest.mark.parametrize("numerator", [0.0, -1.0])
    def test_a_numerator_not_above_zero_leaves_an_upper_bound_only(self, numerator):
        found = fraction(numerator, 100.0, (1.0, 1.0))

        assert found.status is Status.NOISE_BELOW_ERROR
        assert math.isnan(float(found))
        assert 0 == found.low < found.high < 0.04

    @pytest.mark.parametrize("units", [(1e150, 1e150), (1.0, 1e150), (1e-150, 1e-150)])
    def test_the_units_of_the_parts_do_not_matter(self, units):
        u, v = units
        plain = fraction(6.0, 3.0, (0.25, 0.25), 0.1)

        found = fraction(6 * u, 3 * v, (0.25 * u * u, 0.25 * v * v), 0.1 * u * v)

        assert found.low == pytest.approx(plain.low * u / v, rel=1e-12)
        assert found.high == pytest.approx(plain.high * u / v, rel=1e-12)

    @pytest.mark.parametrize(
        ("parts", "variances"),
        [((60.0, -3.0), (1.0, 1.0)), ((-3.0, 60.0), (1.0, 1.0)), ((-6.0, -3.0), (0.0, 0.0))],
    )
    def test_a_clearly_negative_part_is_negative_curvature(self, parts, variances):
        found = fraction(*parts, variances)

        assert found.status is Status.NEGATIVE_CURVATURE
        assert math.isnan(float(found))
        assert (found.low, found.high) == (-INF, INF)

    @pytest.mark.parametrize("parts", [(60.0, -1.0), (-1.0, 60.0)])
    def test_a_part_negative_within_its_error_is_not(self, parts):
        assert fraction(*parts, (1.0, 1.0)).status is not Status.NEGATIVE_CURVATURE

    def test_a_squared_norm_estimated_below_zero_is_an_unresolved_one(self):
        found = fraction(60.0, -3.0, (1.0, 1.0), positive_denominator=True)

        assert found.status is Status.SIGNAL_BELOW_NOISE
        assert math.isnan(float(found))
        assert found.high == INF

    def test_a_squared_norm_estimated_below_zero_bounds_the_ratio_as_zero_does(self):
        found, zero = (
            fraction(60.0, denominator, (1.0, 1.0), positive_denominator=True)
            for denominator in (-3.0, 0.0)
        )

        assert 0 < found.low == zero.low

    @pytest.mark.parametrize("variances", [(NAN, 1.0), (1.0, NAN), (NAN, NAN)])
    def test_without_variances_there_is_a_value_and_no_interval(self, variances):
        found = fraction(6.0, 3.0, variances)

        assert (found.value, found.status) == (2.0, Status.NO_INTERVAL)
        assert (found.low, found.high) == (0.0, INF)

    @pytest.mark.parametrize("parts", [(6.0, 0.0), (6.0, -3.0), (-6.0, 3.0)])
    def test_without_variances_an_unusable_part_leaves_no_value(self, parts):
        found = fraction(*parts, (NAN, NAN))

        assert math.isnan(float(found))
        below = Status.NOISE_BELOW_ERROR if parts[1] > 0 else Status.SIGNAL_BELOW_NOISE
        assert found.status is below

    @pytest.mark.parametrize("covariance", [0.0, 0.8, -0.8])
    def test_the_interval_covers_as_often_as_it_says(self, covariance):
        hits, draws = _coverage((60.0, 30.0), covariance, level=0.9)

        assert abs(hits / draws - 0.9) < 3.5 * math.sqrt(0.9 * 0.1 / draws)

    @pytest.mark.parametrize("truth", [(60.0, 1.0), (60.0, 2.5), (2.0, 2.0), (1.0, 30.0)])
    def test_a_weak_part_costs_no_coverage(self, truth):
        hits, draws = _coverage(truth, 0.5, level=0.9)

        assert hits / draws > 0.9 - 3.5 * math.sqrt(0.9 * 0.1 / draws)


def _coverage(truth, covariance, level, draws=10_000):
    """How many intervals hold the true ratio, over draws around it with unit variances.

    Of a fixed seed; 3.5 standard errors are exceeded by chance in 1 of 2000 (one side: 4000) seeds.
    """
    source = np.random.default_rng(0)
    parts = source.multivariate_normal(truth, [[1, covariance], [covariance, 1]], size=draws)
    target, hits = truth[0] / truth[1], 0
    for numerator, denominator in parts:
        found = fraction(numerator, denominator, (1.0, 1.0), covariance, level=level)
        hits += found.low <= target <= found.high
    return hits, draws


class TestSkewedRatio:
    skewed = of_pair([0.0, 0.1, 0.2, 3.0, 0.5, 0.3], [0.4, 2.0, 0.1, 0.3, 0.2, 0.1])
    options: ClassVar[dict[str, Any]] = {
        "variances": (0.25, 0.09),
        "covariance": 0.02,
        "level": 0.95,
        "samples": 50,
    }

    def test_without_skewness_it_is_fiellers(self) -> None:
        none = of_pair([1.0, -1.0, 0.0], [0.0, 1.0, -1.0])
        found = ratio(6.0, 3.0, **self.options, skew=none)
        plain = ratio(6.0, 3.0, **self.options)
        assert (found.low, found.high) == pytest.approx((plain.low, plain.high), rel=1e-9)

    def test_a_bound_lies_as_far_from_fitting_as_skewness_lets_it(self) -> None:
        plain, t = ratio(6.0, 3.0, **self.options), quantile(0.95, math.inf)
        mirrored = Skew(-self.skewed.third, -self.skewed.coupling, -self.skewed.quadratic)
        moved = []
        for skew in (self.skewed, mirrored):
            found = ratio(6.0, 3.0, **self.options, skew=skew)
            moved += [plain.low / found.low > 1.03, found.high / plain.high > 1.03]
            assert found.low <= plain.low * (1 + 1e-9)
            assert found.high >= plain.high * (1 - 1e-9)
            for bound, end in ((found.low, 0), (found.high, 1)):
                miss = 6 - bound * 3
                error = math.sqrt(0.25 - 2 * bound * 0.02 + bound**2 * 0.09)
                reach = skew.critical_values((1.0, -bound), error, t)[end]
                assert abs(miss) / error == pytest.approx(reach, rel=1e-6)
        assert moved[0]
        assert moved[3]

    @pytest.mark.parametrize("sign", [1.0, -1.0])
    @pytest.mark.parametrize("positive", [True, False])
    def test_it_opens_exactly_where_the_denominators_own_interval_holds_zero(
        self, sign: float, positive: bool
    ) -> None:
        skew = of_pair([0.0, 0.1, -0.1, 0.0], [0.0, sign, 0.0, 0.0])
        seen = set()
        for step in range(-40, 120):
            value = step / 40
            own = with_skew(value, 0.09, skew, level=0.95, samples=50, freedom=math.inf, part=1)
            found = ratio(6.0, value, **self.options, skew=skew, positive_denominator=positive)
            assert math.isfinite(found.high) == (own.low > 0)
            assert found.is_resolved == (own.low > 0)
            negative = found.status is Status.NEGATIVE_CURVATURE
            assert negative == (own.high < 0 and not positive)
            seen.add(found.status)
        assert {Status.RESOLVED, Status.SIGNAL_BELOW_NOISE} <= seen

    def test_a_numerator_that_skewness_lets_be_zero_leaves_no_lower_bound(self) -> None:
        skew = of_pair([0.0, 0.0, 0.0, -4.0], [0.0, 0.1, -0.1, 0.0])
        options = {"variances": (1.0, 1e-4), "covariance": 0.0, "level": 0.95, "samples": 50}
        assert ratio(2.5, 1.0, **options).low > 0
        found = ratio(2.5, 1.0, **options, skew=skew)
        assert found.low == 0
        assert found.is_resolved

    @pytest.mark.parametrize("units", [(1e40, 1.0), (1.0, 1e40), (1e-40, 1e-40)])
    def test_units_do_not_matter(self, units: tuple[float, float]) -> None:
        u, v = units
        plain = ratio(6.0, 3.0, **self.options, skew=self.skewed)
        scale = torch.tensor([u, v], dtype=torch.float64)
        cubes = torch.einsum("a,b,c->abc", scale, scale, scale)
        scaled = Skew(self.skewed.third * cubes, self.skewed.coupling * cubes, 0 * cubes)
        found = ratio(
            6 * u,
            3 * v,
            variances=(0.25 * u * u, 0.09 * v * v),
            covariance=0.02 * u * v,
            level=0.95,
            samples=50,
            skew=scaled,
        )
        assert found.low == pytest.approx(plain.low * u / v, rel=1e-9)
        assert found.high == pytest.approx(plain.high * u / v, rel=1e-9)
