"""Estimates: what they say, how they are shown, and their dictionaries."""

import dataclasses
import math

import pytest

import gradnoise as gn
from gradnoise.statistics.estimate import Estimate, Status, check_level, short

INF, NAN = math.inf, math.nan


def estimate(value, low, high, status=Status.RESOLVED):
    return Estimate(value, low, high, 0.95, NAN, 100, status)


class TestStatus:
    def test_only_a_resolved_estimate_needs_no_remedy(self):
        assert [status for status in Status if not status.remedy] == [Status.RESOLVED]

    @pytest.mark.parametrize(
        ("status", "what_to_do"),
        [
            (Status.NO_INTERVAL, "intervals=True"),
            (Status.NO_INTERVAL, "smaller groups (`group_size`)"),
            (Status.SIGNAL_BELOW_NOISE, "max_samples"),
            (Status.NOISE_BELOW_ERROR, "probes"),
            (Status.NEGATIVE_CURVATURE, "later in training"),
            (Status.NOT_CONVERGED, "max_iterations"),
            (Status.NO_DESCENT, "momentum"),
            (Status.NO_RISE, "later in training"),
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


@pytest.mark.parametrize("level", [0.0, 1.0, -0.5, 95.0, NAN])
def test_a_level_that_is_no_coverage_is_refused(level):
    with pytest.raises(gn.ArgumentError, match=r"`level` is a coverage .* got"):
        check_level(level)


@pytest.mark.parametrize("level", [1e-6, 0.5, 1 - 1e-9])
def test_a_coverage_is_accepted(level):
    assert check_level(level) is None


def test_a_format_is_that_of_the_value() -> None:
    e = Estimate(12.345, 11.0, 13.0, 0.95, 0.5, 64)
    assert (f"{e:.1f}", f"{e}", f"{e:>8.0f}") == ("12.3", str(e), "      12")
