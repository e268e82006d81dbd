"""A change is one only beyond the errors of both measurements."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from statistics import NormalDist

import pytest

from gradnoise.statistics.change import find_change
from gradnoise.statistics.estimate import Estimate, Status


def known(value: float) -> Estimate:
    return Estimate(value, value, value, 0.95, 0.0, 100)


def given(low: float, value: float, high: float, status: Status = Status.RESOLVED) -> Estimate:
    return Estimate(value, low, high, 0.95, math.nan, 100, status)


def at_least(low: float, high: float = math.inf) -> Estimate:
    return given(low, math.nan, high, Status.SIGNAL_BELOW_NOISE)


UNDEFINED = given(-math.inf, math.nan, math.inf, Status.NEGATIVE_CURVATURE)


def test_exact_numbers_change_when_they_differ() -> None:
    assert find_change(known(2.0), known(5.0)).verdict == "rose"
    assert find_change(known(5.0), known(2.0)).change.value == pytest.approx(0.4)
    same = find_change(known(5.0), known(5.0))
    assert (same.verdict, same.changed, same.size) == ("within error", False, 0.0)


def test_rounding_of_a_difference_is_relative_to_the_numbers() -> None:
    pair = known(-5e6), known(-5e6 + 1e-2)
    assert find_change(*pair, signed=True).verdict == "rose"
    assert find_change(*pair, signed=True, rounding=1e-6).verdict == "within error"
    assert find_change(known(-5.0), known(-4.99), signed=True, rounding=1e-6).verdict == "rose"


def test_rounding_is_no_change() -> None:
    nearly = known(5.0 * (1 + 1e-6))
    assert find_change(known(5.0), nearly).verdict == "rose"
    assert find_change(known(5.0), nearly, rounding=1e-5).verdict == "within error"
    assert find_change(known(-5.0), known(-5.00001), signed=True).verdict == "fell"
    found = find_change(known(-5.0), known(-5.00001), signed=True, rounding=1e-5)
    assert found.verdict == "within error"


def test_related_errors_add_up() -> None:
    found = find_change(given(8.0, 10.0, 12.5), given(16.0, 20.0, 25.0)).change
    assert (found.low, found.value, found.high) == pytest.approx((16 / 12.5, 2.0, 25 / 8))


def test_independent_errors_add_in_squares_each_on_its_side() -> None:
    one, two = given(8.0, 10.0, 20.0), given(10.0, 20.0, 25.0)
    found = find_change(one, two, independent=True).change
    down = math.hypot(math.log(2), math.log(2))
    up = math.hypot(math.log(1.25), math.log(1.25))
    assert found.low == pytest.approx(2 * math.exp(-down))
    assert found.high == pytest.approx(2 * math.exp(up))


def test_the_other_way_round_the_ratio_is_one_over_it() -> None:
    one, two = given(8.0, 10.0, 20.0), given(10.0, 20.0, 25.0)
    for independent in (True, False):
        ahead = find_change(one, two, independent=independent).change
        back = find_change(two, one, independent=independent).change
        assert (1 / ahead.high, 1 / ahead.low) == pytest.approx((back.low, back.high))


@pytest.mark.parametrize(
    ("first", "second", "verdict"),
    [
        (at_least(50.0), given(18.0, 20.0, 22.0), "fell"),
        (given(18.0, 20.0, 22.0), at_least(50.0), "rose"),
        (at_least(50.0), given(40.0, 60.0, 90.0), "cannot tell"),
        (at_least(50.0), given(400.0, 600.0, 900.0), "cannot tell"),
        (at_least(50.0), at_least(2.0), "cannot tell"),
        (at_least(0.0), at_least(0.0), "cannot tell"),
        (at_least(0.0, 3.0), given(5.0, 6.0, 7.0), "rose"),
        (given(0.0, 6.0, math.inf, Status.NO_INTERVAL), given(5.0, 6.0, 7.0), "cannot tell"),
        (given(5.0, 6.0, 7.0, Status.NOT_CONVERGED), given(50.0, 60.0, 70.0), "cannot tell"),
        (UNDEFINED, known(2.0), "cannot tell"),
        (known(math.inf), known(2.0), "cannot tell"),
        (given(-5.0, -3.0, -1.0), known(2.0), "cannot tell"),
        (known(0.0), known(2.0), "rose"),
        (known(0.0), known(0.0), "within error"),
    ],
)  # fmt: skip
def test_bounds_tell_only_what_they_bound(first: Estimate, second: Estimate, verdict: str) -> None:
    for independent in (True, False):
        found = find_change(first, second, independent=independent)
        assert found.verdict == verdict
        assert found.changed == {"cannot tell": None, "within error": False}.get(verdict, True)


@pytest.mark.parametrize(
    ("first", "second", "verdict", "is_ratio"),
    [
        (given(1.0, 2.0, 3.0), given(4.0, 5.0, 6.0), "rose", True),
        (given(-3.0, -2.0, -1.0), given(4.0, 5.0, 6.0), "rose", False),
        (given(-3.0, -2.0, -1.0), given(-6.0, -5.0, -4.0), "fell", False),
        (given(-1.0, 1.0, 3.0), given(0.5, 2.0, 3.5), "within error", False),
        (known(0.0), known(-1.0), "fell", False),
    ],
)
def test_what_may_be_negative_is_compared_by_a_difference(
    first: Estimate, second: Estimate, verdict: str, is_ratio: bool
) -> None:
    found = find_change(first, second, signed=True)
    assert (found.verdict, found.is_ratio) == (verdict, is_ratio)


def test_a_higher_level_has_longer_margins() -> None:
    one, two = given(8.0, 10.0, 12.5), given(8.0, 10.0, 12.5)
    wide = find_change(one, two, level=0.99).change
    plain = find_change(one, two, level=0.95).change
    ratio = math.log(wide.high) / math.log(plain.high)
    assert 1.314 < ratio < 1.34  # 2.576/1.960, a little more for Student's with 99 degrees
    narrow = find_change(one, two, level=0.5).change
    assert 0.344 < math.log(narrow.high) / math.log(plain.high) < 0.35
    assert wide.level == 0.99


def test_the_higher_level_of_the_two_is_the_default() -> None:
    one, two = given(8.0, 10.0, 12.5), replace(given(8.0, 10.0, 12.5), level=0.99)
    assert find_change(one, two).change.level == 0.99


def test_a_bound_tells_nothing_at_a_higher_level_than_its_own() -> None:
    first, second = at_least(50.0), given(18.0, 20.0, 22.0)
    assert find_change(first, second, level=0.9).verdict == "fell"
    assert find_change(first, second, level=0.99).verdict == "cannot tell"


def test_changes_are_sorted_by_their_size() -> None:
    sizes = [
        find_change(known(10.0), known(11.0)).size,
        find_change(known(10.0), known(5.0)).size,
        find_change(known(10.0), at_least(30.0)).size,
        find_change(known(-1.0), known(1.0), signed=True).size,
    ]
    assert sizes == sorted(sizes)
    assert sizes[0] == pytest.approx(math.log(1.1))
    assert sizes[2] == pytest.approx(math.log(3.0))


@pytest.mark.parametrize(
    ("first", "second", "signed", "words"),
    [
        (known(10.0), known(5.0), False, "0.500 times as large (exact)"),
        (given(8.0, 10.0, 12.5), known(20.0), False, "2.00 times as large (1.60 to 2.50)"),
        (at_least(50.0), known(20.0), False, "at most 0.400 times as large"),
        (known(-1.0), known(2.0), True, "3.00 higher (exact)"),
        (given(-2.0, -1.0, 0.0), known(-3.0), True, "2.00 lower (-3.00 to -1.00)"),
    ],
)
def test_it_is_told_in_words(first: Estimate, second: Estimate, signed: bool, words: str) -> None:
    assert str(find_change(first, second, signed=signed)) == words


def test_alarms_are_as_frequent_as_the_level_says() -> None:
    """Enumerated: errors at 200 equally likely quantiles of a normal distribution, all pairs."""
    errors = NormalDist().inv_cdf
    points = [errors((i + 0.5) / 200) for i in range(200)]
    logs = [given(*(math.exp(x + k * 1.95996) for k in (-1, 0, 1))) for x in points]
    flat = [given(*(x + k * 1.95996 for k in (-1, 0, 1))) for x in points]
    for measured, signed in ((logs, False), (flat, True)):
        shares = [
            sum(
                bool(find_change(a, b, independent=independent, signed=signed).changed)
                for a, b in itertools.product(measured, repeat=2)
            )
            / len(measured) ** 2
            for independent in (True, False)
        ]
        assert 0.045 < shares[0] < 0.05
        assert 0.004 < shares[1] < 0.006  # P(|x - y| > 2·1.96) of two normal numbers


def test_it_can_be_written_as_values() -> None:
    found = find_change(known(10.0), known(5.0)).to_dict()
    assert (found["verdict"], found["is_ratio"]) == ("fell", True)
    assert found["change"]["value"] == pytest.approx(0.5)


def test_intervals_of_ratios_hold_the_truth_for_every_correlation() -> None:
    """Every pair of errors within the margins, whatever they have to do with each other."""
    for up, down in itertools.product((-1.0, -0.5, 0.0, 0.5, 1.0), repeat=2):
        one, two = math.exp(up), 3 * math.exp(down)
        first = given(one / math.e, one, one * math.e)
        second = given(two / math.e, two, two * math.e)
        found = find_change(first, second).change
        assert found.low <= 3 * (1 + 1e-12)
        assert found.high >= 3 * (1 - 1e-12)
