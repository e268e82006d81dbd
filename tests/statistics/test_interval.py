"""Intervals against t tables, Johnson's and Hall's equations, and exact coverage."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import pytest
import torch
from scipy import stats
from torch import Tensor

import gradnoise as gn
from gradnoise.statistics.estimate import Estimate, Status
from gradnoise.statistics.interval import (
    flag_zero,
    pooled_freedom,
    skewed,
    skewness,
    symmetric,
    with_skew,
)
from gradnoise.statistics.skew import Skew
from tests.clouds import moments_of_cloud
from tests.formulas import skew_of

INF, NAN = math.inf, math.nan
VALUES = torch.tensor([0.0, 1.0, 1.5, 7.0, -2.0, 0.5], dtype=torch.float64)


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


class TestSkewed:
    def test_it_is_students_interval_longer_on_the_side_of_the_tail(self):
        even, right, left = (
            skewed(1.0, 0.25, skew, level=0.95, samples=9) for skew in (0.0, 2.0, -2.0)
        )
        t = 2.306004135
        assert (even.low, even.high) == pytest.approx((1 - 0.5 * t, 1 + 0.5 * t))
        shift = 2 * 2.0 * (1 + 2 * t * t) / 18 * 0.5
        assert (right.low, right.high) == pytest.approx((even.low, even.high + shift))
        assert (left.low, left.high) == pytest.approx((even.low - shift, even.high))

    def test_the_skewness_of_numbers_is_their_third_moment(self):
        assert skewness([0.0, 0.0, 3.0]) == pytest.approx(1 / math.sqrt(2))
        assert skewness([0.0, 1.0, 5.0]) == pytest.approx(float(stats.skew([0.0, 1.0, 5.0])))
        assert skewness([2.0, 2.0]) == 0

    @pytest.mark.parametrize("unit", [1e-200, 1e200])
    def test_the_skewness_has_no_unit(self, unit):
        numbers = [0.0, 1.0, 5.0]
        assert skewness([unit * x for x in numbers]) == pytest.approx(skewness(numbers))


class TestFlagZero:
    @pytest.mark.parametrize(
        ("low", "high", "positive", "flagged"),
        [
            (-1.0, 3.0, False, True),
            (0.0, 3.0, False, True),
            (0.5, 3.0, False, False),
            (-3.0, -1.0, False, False),
            (-3.0, -1.0, True, True),
        ],
    )
    def test_an_interval_that_contains_zero_is_not_resolved(self, low, high, positive, flagged):
        found = flag_zero(Estimate(1.0, low, high, 0.95, 0.5, 9), positive=positive)
        assert (found.status is Status.SIGNAL_BELOW_NOISE) == flagged
        assert (found.value, found.low, found.high) == (1.0, low, high)

    @pytest.mark.parametrize(
        ("stderr", "status"), [(0.0, Status.RESOLVED), (0.5, Status.NOT_CONVERGED)]
    )
    def test_what_is_exact_or_flagged_already_stays_as_it_is(self, stderr, status):
        estimate = Estimate(0.0, -1.0, 1.0, 0.95, stderr, 9, status)
        assert flag_zero(estimate) is estimate


class TestWithSkew:
    options: ClassVar[dict[str, Any]] = {"level": 0.95, "samples": 6, "freedom": 5.0}

    def test_it_contains_students_interval_and_is_longer_on_the_side_of_the_tail(self) -> None:
        skew, variance = Skew.of(VALUES[None]), float(VALUES.var()) / 6
        found = with_skew(1.0, variance, skew, **self.options)
        student = symmetric(1.0, variance, **self.options)
        assert found.low == pytest.approx(student.low)
        assert found.high > student.high + student.stderr
        assert found.stderr == student.stderr

    def test_part_chooses_the_estimate(self) -> None:
        pair = Skew.of(torch.stack([VALUES, -VALUES]))
        first, second = (with_skew(0.0, 1.0, pair, **self.options, part=part) for part in (0, 1))
        assert (first.low, first.high) == (-second.high, -second.low)

    def test_no_variance_is_exact_and_an_unmeasured_one_says_so(self) -> None:
        skew = skew_of(1.0)
        assert with_skew(3.0, 0.0, skew, **self.options).is_exact
        assert with_skew(3.0, math.nan, skew, **self.options).status is Status.NO_INTERVAL

    @pytest.mark.parametrize("unit", [1e-60, 1e60])
    def test_units_do_not_matter(self, unit: float) -> None:
        one = with_skew(1.0, 1.0, Skew.of(VALUES[None]), **self.options)
        found = with_skew(unit, unit**2, Skew.of(unit * VALUES[None]), **self.options)
        assert found.low == pytest.approx(unit * one.low, rel=1e-12)
        assert found.high == pytest.approx(unit * one.high, rel=1e-12)

    def test_it_covers_the_mean_of_skewed_numbers_where_students_does_not(self) -> None:
        """2000 times 48 squares of squares: skewness 5.3, as in a sum of products of gradients."""
        source = torch.Generator().manual_seed(3)
        draws = torch.randn(2000, 48, generator=source, dtype=torch.float64) ** 2
        draws = draws * torch.randn(2000, 48, generator=source, dtype=torch.float64) ** 2
        covered = {"student": 0, "corrected": 0}
        for values in draws:
            options = {"level": 0.95, "samples": 48, "freedom": 47.0}
            mean, variance = float(values.mean()), float(values.var()) / 48
            found = with_skew(mean, variance, Skew.of(values[None]), **options)
            covered["corrected"] += found.low <= 1 <= found.high
            found = symmetric(mean, variance, **options)
            covered["student"] += found.low <= 1 <= found.high
        assert covered["student"] / 2000 < 0.87
        assert covered["corrected"] / 2000 > 0.90


def flips(count: int, n: int, wrong: float) -> Tensor:
    """Gradients of `FlippedLogistic` with so many labels flipped, shape (n, 1)."""
    return torch.cat([torch.full((count, 1), 1.0), torch.zeros(n - count, 1)]).double() - wrong


@pytest.mark.parametrize(
    ("n", "flip", "low", "high"),
    [
        (64, 0.4, 0.90, 0.98),
        (64, 0.3, 0.90, 0.985),
        (256, 0.4, 0.93, 0.98),
        (256, 0.3, 0.93, 0.97),
        (256, 0.2, 0.93, 0.97),
    ],
)
def test_the_exact_coverage_with_flipped_labels(
    n: int, flip: float, low: float, high: float
) -> None:
    """Every number of flips, weighed by its probability: nothing is drawn."""
    truth = gn.toy.FlippedLogistic(flip).truth()
    quantities = ("grad_sq_norm", "trace_cov", "simple_noise_scale")
    covered = dict.fromkeys(quantities, 0.0)
    for count, chance in enumerate(stats.binom.pmf(range(n + 1), n, flip)):
        if chance > 1e-7:
            moments = moments_of_cloud(flips(count, n, 0.5))
            for quantity in quantities:
                found, exact = getattr(moments, quantity), getattr(truth, quantity)
                covered[quantity] += chance * (found.low - 1e-12 <= exact <= found.high + 1e-12)
    for quantity, share in covered.items():
        # a lower bound, where the signal is lost, can miss on one side only
        most = 0.998 if quantity == "simple_noise_scale" else high
        assert low < share < most, quantity
