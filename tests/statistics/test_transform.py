"""Functions of estimates: the function of the value, the function of the ends."""

from __future__ import annotations

import math

import pytest

from gradnoise.statistics.estimate import Estimate, Status
from gradnoise.statistics.quantile import quantile
from gradnoise.statistics.transform import (
    all_in_samples,
    decreasing,
    monotone,
    scaled,
    square_root,
    squared,
    undefined,
    unknown,
    within,
)

INF, NAN = math.inf, math.nan
NEGATIVE = Estimate(NAN, -INF, INF, 0.9, NAN, 100, Status.NEGATIVE_CURVATURE)


def estimate(value: float, low: float, high: float, status: Status = Status.RESOLVED) -> Estimate:
    return Estimate(value, low, high, 0.9, 0.25, 100, status)


def ends(found: Estimate) -> tuple[float, float, float]:
    return found.low, found.value, found.high


class TestDecreasing:
    def test_the_ends_change_places(self) -> None:
        found = decreasing(lambda x: 2 / x, estimate(4.0, 2.0, 5.0))
        assert ends(found) == (0.4, 0.5, 1.0)
        assert (found.level, found.samples, found.status) == (0.9, 100, Status.RESOLVED)
        assert math.isnan(found.stderr)

    def test_two_parts_are_taken_at_their_same_ends(self) -> None:
        parts = estimate(4.0, 2.0, 5.0), estimate(1.0, 0.0, 3.0)
        found = decreasing(lambda x, y: 2 / x / (1 + y), *parts)
        assert ends(found) == (0.1, 0.25, 1.0)

    def test_a_part_that_may_be_zero_leaves_no_upper_end(self) -> None:
        found = decreasing(lambda x: 2 / x, estimate(4.0, -1.0, 5.0, Status.SIGNAL_BELOW_NOISE))
        assert ends(found) == (0.4, 0.5, INF)
        assert found.status is Status.SIGNAL_BELOW_NOISE

    def test_an_unbounded_part_leaves_no_lower_end(self) -> None:
        part = estimate(NAN, 2.0, INF, Status.SIGNAL_BELOW_NOISE)
        found = decreasing(lambda x: 2 / x, part)
        assert (found.low, found.high) == (0.0, 1.0)
        assert math.isnan(found.value)

    def test_the_status_is_that_of_the_first_part_that_is_not_resolved(self) -> None:
        lost = estimate(1.0, 0.5, 3.0, Status.NOT_CONVERGED)
        assert decreasing(lambda x, y: 1 / x / y, estimate(1.0, 0.5, 2.0), lost).status is (
            Status.NOT_CONVERGED
        )

    def test_a_negative_curvature_leaves_nothing(self) -> None:
        for parts in ((NEGATIVE,), (estimate(1.0, 0.5, 2.0), NEGATIVE)):
            found = decreasing(lambda *x: 1.0, *parts)
            assert (found.low, found.high) == (-INF, INF)
            assert math.isnan(found.value)
            assert found.status is Status.NEGATIVE_CURVATURE


class TestMonotone:
    @pytest.mark.parametrize(
        ("function", "expected"), [(lambda x: 1 + x, (1.0, 3.0, 6.0)), (lambda x: -x, (-5, -2, 0))]
    )
    def test_the_ends_are_in_order_and_cut_at_zero(self, function, expected) -> None:
        assert ends(monotone(function, estimate(2.0, -1.0, 5.0))) == expected

    def test_no_value_stays_none(self) -> None:
        found = monotone(lambda x: 1 + x, estimate(NAN, 2.0, INF, Status.SIGNAL_BELOW_NOISE))
        assert (found.low, found.high) == (3.0, INF)
        assert math.isnan(found.value)
        assert monotone(lambda x: x, NEGATIVE).status is Status.NEGATIVE_CURVATURE


def test_what_is_undefined_has_no_bounds() -> None:
    found = undefined(NEGATIVE)
    assert (found.low, found.high, found.level, found.samples) == (-INF, INF, 0.9, 100)
    assert math.isnan(found.value)


def test_what_is_unknown_is_not_negative() -> None:
    found = unknown(0.9, 7, Status.SIGNAL_BELOW_NOISE)
    assert (found.low, found.high, found.level, found.samples) == (0.0, INF, 0.9, 7)
    assert math.isnan(found.value)
    assert found.status is Status.SIGNAL_BELOW_NOISE


def test_a_factor_and_an_offset_move_value_and_ends() -> None:
    found = scaled(estimate(2.0, 1.0, 4.0, Status.NOT_CONVERGED), 3.0, offset=1.0)
    assert ends(found) == (4.0, 7.0, 13.0)
    assert (found.stderr, found.level, found.samples) == (0.75, 0.9, 100)
    assert found.status is Status.NOT_CONVERGED


def test_an_estimate_with_parts_is_scaled_without_them() -> None:
    class WithParts(Estimate):
        pass

    assert type(scaled(WithParts(1.0, 0.0, 2.0, 0.9, 0.5, 9), 2.0)) is Estimate


def test_a_square_is_taken_of_the_part_above_zero() -> None:
    assert ends(squared(estimate(2.0, -1.0, 3.0))) == (0.0, 4.0, 9.0)
    assert math.isnan(squared(estimate(2.0, 1.0, 3.0)).stderr)
    assert squared(Estimate(2.0, 2.0, 2.0, 0.9, 0.0, 9)) == Estimate(4.0, 4.0, 4.0, 0.9, 0.0, 9)


def test_a_quantity_stays_within_its_range() -> None:
    assert ends(within(estimate(1.2, -0.5, 1.5), 0.0, 1.0)) == (0.0, 1.0, 1.0)
    assert ends(within(estimate(0.2, 0.1, 0.5), 0.0, 1.0)) == (0.1, 0.2, 0.5)
    assert math.isnan(within(estimate(NAN, 0.0, INF), 0.0, 1.0).value)


class TestSquareRoot:
    def test_value_and_ends_are_roots(self) -> None:
        found = square_root(9.0, 1.0, level=0.95, samples=11)
        t = quantile(0.95, 10)
        assert ends(found) == pytest.approx((math.sqrt(9 - t), 3.0, math.sqrt(9 + t)))
        assert found.stderr == pytest.approx(1 / 6)  # d√x = dx/(2√x)
        assert found.is_resolved

    def test_a_square_that_may_be_zero_is_not_resolved(self) -> None:
        found = square_root(1.0, 1.0, level=0.95, samples=11)
        assert (found.low, found.value) == (0.0, 1.0)
        assert found.status is Status.SIGNAL_BELOW_NOISE

    @pytest.mark.parametrize("square", [0.0, -1.0])
    def test_a_square_that_is_not_positive_has_no_root(self, square: float) -> None:
        found = square_root(square, 1.0, level=0.95, samples=11)
        assert math.isnan(found.value)
        assert found.low == 0
        assert found.status is Status.SIGNAL_BELOW_NOISE


def test_groups_are_told_in_samples_and_what_does_not_grow_stays() -> None:
    named = {"noise": estimate(2, 1, 3), "signal": estimate(4, 3, 5), "name": "no estimate"}
    found = all_in_samples(named, 5, kept=("signal",))
    assert [*found] == ["noise", "signal"]
    assert ends(found["noise"]) == (5, 10, 15)
    assert ends(found["signal"]) == (3, 4, 5)
    assert found["noise"].samples == found["signal"].samples == 500
    assert all_in_samples(named, 1, kept=())["noise"] is named["noise"]
