"""Estimates and intervals against t tables, Fieller's equation and a known Gaussian."""

import dataclasses
import math

import numpy as np
import pytest

import gradnoise as gn
from gradnoise.statistics.estimate import Estimate, Status, check_level, short
from gradnoise.statistics.interval import pooled_freedom, quantile, symmetric
from gradnoise.statistics.ratio import ratio

INF, NAN = math.inf, math.nan


def estimate(value, low, high, status=Status.RESOLVED):
    return Estimate(value, low, high, 0.95, NAN, 100, status)


def fraction(numerator, denominator, variances, covariance=0.0, **options):
    settings = {"level": 0.95, "samples": 100, **options}
    return ratio(numerator, denominator, variances=variances, covariance=covariance, **settings)


class TestStatus:
    def test_only_a_resolved_estimate_needs_no_remedy(self):
        assert [status for status in Status if not status.remedy] == [Status.RESOLVED]

    @pytest.mark.parametrize(
        ("status", "what_to_do"),
        [
            (Status.NO_INTERVAL, "intervals=True"),
            (Status.SIGNAL_BELOW_NOISE, "max_samples"),
            (Status.NOISE_BELOW_ERROR, "probes"),
            (Status.NEGATIVE_CURVATURE, "later in training"),
            (Status.NOT_CONVERGED, "max_iterations"),
        ],
    )
    def test_a_remedy_names_what_to_change(self, status, what_to_do):
        assert what_to_do in status.remedy


class TestEstimate:
    def test_it_is_a_number(self):
        assert float(estimate(3.0, 2.5, 3.5)) == 3.0

    def test_it_cannot_be_changed(self):
        with pytest.raises(dataclasses.FrozenInstanceError, match="value"):
            estimate(3.0, 2.5, 3.5).value = 4.0

    @pytest.mark.parametrize("status", list(Status))
    def test_only_the_resolved_status_is_resolved(self, status):
        assert estimate(3.0, 2.5, 3.5, status).is_resolved == (status is Status.RESOLVED)

    @pytest.mark.parametrize(
        ("bounds", "exact"),
        [((3.0, 3.0), True), ((2.5, 3.0), False), ((3.0, 3.5), False), ((-INF, INF), False)],
    )
    def test_it_is_exact_when_its_interval_is_its_value(self, bounds, exact):
        assert estimate(3.0, *bounds).is_exact == exact

    def test_no_value_is_never_exact(self):
        assert not estimate(NAN, NAN, NAN).is_exact

    @pytest.mark.parametrize(
        ("shown", "text"),
        [
            (estimate(3.0, 2.5, 3.5), "3.00 [2.50, 3.50]"),
            (estimate(3.0, 3.0, 3.0), "3.00 (exact)"),
            (estimate(3.0, -INF, INF, Status.NO_INTERVAL), "3.00 (no interval)"),
            (
                estimate(3.0, 2.5, 3.5, Status.NOT_CONVERGED),
                "3.00 [2.50, 3.50] (not converged)",
            ),
            (
                estimate(NAN, 1234.0, INF, Status.SIGNAL_BELOW_NOISE),
                "at least 1 230 (signal below noise)",
            ),
            (
                estimate(NAN, 0.0, 9.0, Status.NOISE_BELOW_ERROR),
                "at most 9.00 (noise below its own error)",
            ),
            (
                estimate(NAN, -INF, INF, Status.NEGATIVE_CURVATURE),
                "undefined (negative curvature)",
            ),
        ],
    )
    def test_it_reads_as_value_interval_and_reservation(self, shown, text):
        assert str(shown) == text

    @pytest.mark.parametrize(
        ("low", "high", "status", "words"),
        [
            (1200.0, INF, Status.SIGNAL_BELOW_NOISE, "at least 1 200"),
            (0.0, 3.0, Status.NOISE_BELOW_ERROR, "at most 3.00"),
            (2.0, 3.0, Status.NOT_CONVERGED, "2.00 to 3.00"),
            (0.0, INF, Status.SIGNAL_BELOW_NOISE, "unknown"),
            (-INF, INF, Status.NEGATIVE_CURVATURE, "undefined"),
        ],
    )
    def test_bounds_in_words_say_only_what_is_known(self, low, high, status, words):
        assert estimate(NAN, low, high, status).bounds_in_words() == words

    def test_bounds_can_be_said_with_signs(self):
        bound = estimate(NAN, 1200.0, INF, Status.SIGNAL_BELOW_NOISE)

        assert bound.bounds_in_words("≥ ", "≤ ") == "≥ 1 200"

    @pytest.mark.parametrize("status", list(Status))
    def test_a_dictionary_brings_it_back(self, status):
        original = Estimate(3.0, 2.5, INF, 0.9, 0.25, 100, status)

        assert Estimate.from_dict(original.to_dict()) == original

    def test_its_dictionary_holds_plain_values(self):
        assert Estimate(3.0, 2.5, 3.5, 0.9, 0.25, 100).to_dict() == {
            "value": 3.0,
            "low": 2.5,
            "high": 3.5,
            "level": 0.9,
            "stderr": 0.25,
            "samples": 100,
            "status": "resolved",
        }


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0.0, "0"),
        (0.0123, "0.0123"),
        (0.1, "0.100"),
        (1.0, "1.00"),
        (12.34, "12.3"),
        (99.95, "100"),
        (999.6, "1 000"),
        (1234.0, "1 230"),
        (123456.0, "123 000"),
        (999_499.0, "999 000"),
        (999_500.0, "1.00e+06"),
        (0.001, "0.00100"),
        (0.00099951, "0.00100"),
        (0.00099949, "9.99e-04"),
        (4.5e-6, "4.50e-06"),
        (-1234.0, "-1 230"),
        (-0.5, "-0.500"),
        (INF, "∞"),
        (-INF, "-∞"),
        (NAN, "–"),
    ],
)
def test_a_short_number_has_three_significant_digits(number, text):
    assert short(number) == text


class TestQuantile:
    @pytest.mark.parametrize(
        ("level", "freedom", "tabulated"),  # printed tables of Student's t, two-sided
        [
            (0.95, 1, 12.706),
            (0.95, 2, 4.303),
            (0.95, 10, 2.228),
            (0.95, 30, 2.042),
            (0.90, 10, 1.812),
            (0.99, 5, 4.032),
            (0.90, INF, 1.645),
            (0.95, INF, 1.960),
            (0.99, INF, 2.576),
        ],
    )
    def test_it_is_the_tabulated_one(self, level, freedom, tabulated):
        assert quantile(level, freedom) == pytest.approx(tabulated, abs=5.1e-4)

    @pytest.mark.parametrize("level", [0.0, 1.0, -0.5, 95.0, NAN])
    def test_a_level_that_is_no_coverage_is_refused(self, level):
        with pytest.raises(gn.ArgumentError, match=r"`level` is a coverage .* got"):
            check_level(level)
        with pytest.raises(gn.ArgumentError, match="`level`"):
            quantile(level, 10)


@pytest.mark.parametrize(
    ("parts", "freedom"),
    [
        ([(4.0, 10.0)], 10.0),
        ([(4.0, 10.0), (0.0, 3.0)], 10.0),
        ([(2.0, 7.0), (2.0, 7.0)], 14.0),
        ([(4.0, 10.0), (1.0, 5.0)], 25 / 1.8),
        ([(0.0, 10.0), (0.0, 5.0)], INF),
    ],
)
def test_pooled_freedom_is_welch_and_satterthwaite(parts, freedom):
    assert pooled_freedom(*parts) == pytest.approx(freedom, rel=1e-14)


class TestSymmetric:
    def test_it_reaches_t_standard_errors_to_both_sides(self):
        found = symmetric(10.0, 4.0, level=0.95, samples=11, freedom=10)

        assert (found.value, found.stderr, found.samples) == (10.0, 2.0, 11)
        assert found.high - 10 == 10 - found.low == pytest.approx(2 * 2.228, abs=1e-3)
        assert found.is_resolved

    def test_without_freedom_given_it_is_gaussian(self):
        assert symmetric(0.0, 1.0, level=0.95, samples=5).high == pytest.approx(1.96, abs=1e-3)

    @pytest.mark.parametrize("variance", [0.0, -1e-30])
    def test_no_variance_makes_it_exact(self, variance):
        found = symmetric(3.0, variance, level=0.95, samples=5)

        assert found.is_exact
        assert found.stderr == 0

    def test_an_unmeasured_variance_says_so(self):
        found = symmetric(3.0, NAN, level=0.95, samples=5)

        assert found.status is Status.NO_INTERVAL
        assert (found.value, found.low, found.high) == (3.0, -INF, INF)


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
    """How many intervals hold the true ratio, over draws around it with unit variances."""
    source = np.random.default_rng(0)
    parts = source.multivariate_normal(truth, [[1, covariance], [covariance, 1]], size=draws)
    target, hits = truth[0] / truth[1], 0
    for numerator, denominator in parts:
        found = fraction(numerator, denominator, (1.0, 1.0), covariance, level=level)
        hits += found.low <= target <= found.high
    return hits, draws
