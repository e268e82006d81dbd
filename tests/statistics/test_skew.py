"""Skewed intervals: cumulants by enumeration, Hall's equation, coverage."""

from __future__ import annotations

import itertools
import math
from typing import Any, ClassVar

import pytest
import torch
from scipy import stats
from torch import Tensor

import gradnoise as gn
from gradnoise.statistics.estimate import Status
from gradnoise.statistics.interval import quantile, symmetric, with_skew
from gradnoise.statistics.ratio import ratio
from gradnoise.statistics.skew import Skew
from tests.clouds import moments_of_cloud

VALUES = torch.tensor([0.0, 1.0, 1.5, 7.0, -2.0, 0.5], dtype=torch.float64)


def skew_of(third: float, coupling: float | None = None, quadratic: float = 0.0) -> Skew:
    """Of a single estimate."""
    numbers = (third, third if coupling is None else coupling, quadratic)
    return Skew(*(torch.full((1, 1, 1), x, dtype=torch.float64) for x in numbers))


def of_pair(a: list[float], b: list[float]) -> Skew:
    return Skew.of(torch.tensor([a, b], dtype=torch.float64))


class TestCumulants:
    @pytest.mark.parametrize(
        ("draws", "population"),
        [
            (list(itertools.product(VALUES[:4].tolist(), repeat=3)), math.inf),
            (list(itertools.combinations(VALUES.tolist(), 3)), 6),
            (list(itertools.combinations(VALUES.tolist(), 4)), 6),
            (list(itertools.combinations(VALUES.tolist(), 5)), 6),
        ],
        ids=["with replacement", "3 of 6", "4 of 6", "5 of 6"],
    )
    def test_all_draws_average_to_those_of_the_mean(
        self, draws: list[tuple[float, ...]], population: float
    ) -> None:
        samples = torch.tensor(draws, dtype=torch.float64)
        factor = 1 / samples.shape[1] - 1 / population
        gaps = samples.mean(1) - samples.mean()
        found = [Skew.of(sample[None], population) for sample in samples]
        third = math.fsum(float(skew.third) for skew in found) / len(found)
        coupling = math.fsum(float(skew.coupling) for skew in found) / len(found)
        assert third == pytest.approx(float((gaps**3).mean()), rel=1e-11, abs=1e-13)
        together = float((gaps * factor * samples.var(1)).mean())
        assert coupling == pytest.approx(together, rel=1e-11, abs=1e-13)

    def test_a_combination_has_the_skewness_of_the_combined_influences(self) -> None:
        pair = torch.stack([VALUES, VALUES.flip(0) ** 2])
        combined = Skew.of((2 * pair[0] - 3 * pair[1])[None], 20)
        for t in (1.0, 2.0, 3.0):
            expected = combined.critical_values((1.0,), 4.0, t)
            assert Skew.of(pair, 20).critical_values((2.0, -3.0), 4.0, t) == pytest.approx(expected)

    def test_two_samples_show_none(self) -> None:
        assert float(Skew.of(torch.tensor([[1.0, 5.0]])).third) == 0

    def test_independent_parts_add_up(self) -> None:
        both = skew_of(1.0, 2.0, 3.0) + skew_of(0.5, 0.25, 0.125)
        assert (float(both.third), float(both.coupling), float(both.quadratic)) == (
            1.5,
            2.25,
            3.125,
        )


class TestReaches:
    @pytest.mark.parametrize("third", [0.5, 0.05, 1e-6, -0.5, 3.0])
    @pytest.mark.parametrize("coupling", [0.5, 0.0, -0.2])
    def test_an_end_solves_halls_equation_or_is_students(
        self, third: float, coupling: float
    ) -> None:
        t = 2.0
        down, up = skew_of(third, coupling).critical_values((1.0,), 1.0, t)
        bend = coupling / 2 - third / 6
        for reach, end in ((down, 1.0), (up, -1.0)):
            T = end * reach
            straight = T + bend * T**2 + bend**2 * T**3 / 3 + third / 6
            if reach > t:
                assert straight == pytest.approx(end * t, rel=1e-9)
            else:
                assert reach == t
                assert end * straight >= t - 1e-9

    def test_without_skewness_it_is_students(self) -> None:
        assert skew_of(0.0).critical_values((1.0,), 1.0, 2.0) == (2.0, 2.0)
        assert skew_of(1.0).critical_values((1.0,), 0.0, 2.0) == (2.0, 2.0)

    def test_a_mirrored_tail_mirrors_the_ends(self) -> None:
        one, other = skew_of(0.3, 0.2, 0.1), skew_of(-0.3, -0.2, -0.1)
        assert (
            one.critical_values((1.0,), 1.0, 2.0) == other.critical_values((1.0,), 1.0, 2.0)[::-1]
        )
        assert one.critical_values((-1.0,), 1.0, 2.0) == other.critical_values((1.0,), 1.0, 2.0)

    def test_a_quadratic_part_moves_an_end_by_its_first_term(self) -> None:
        assert skew_of(0.0, 0.0, 0.8).critical_values((1.0,), 2.0, 3.0)[1] == pytest.approx(
            3 + 0.1 * 5
        )
        bent = skew_of(0.0).with_quadratic(torch.full((1, 1, 1), 0.8))
        assert bent.critical_values((1.0,), 2.0, 3.0)[1] == pytest.approx(3.5)

    @pytest.mark.parametrize("quadratic", [-3.0, -0.3, 0.0, 0.5, 2.0])
    @pytest.mark.parametrize("coupling", [-0.6, 0.0, 0.4])
    @pytest.mark.parametrize("third", [-0.8, 0.0, 1.0])
    def test_more_certainty_never_draws_an_end_in(
        self, third: float, coupling: float, quadratic: float
    ) -> None:
        skew = skew_of(third, coupling, quadratic)
        ends = [
            skew.critical_values((1.0,), 1.0, t) for t in (0.2, 0.7, 1.3, 1.6, 1.96, 2.6, 3.3, 5.0)
        ]
        for less, more in itertools.pairwise(ends):
            assert more[0] >= less[0] * (1 - 1e-9)
            assert more[1] >= less[1] * (1 - 1e-9)

    @pytest.mark.parametrize("third", [1e200, -1e200, math.inf])
    def test_a_monstrous_skewness_breaks_nothing(self, third: float) -> None:
        assert all(reach >= 2 for reach in skew_of(third).critical_values((1.0,), 1.0, 2.0))


class TestLopsided:
    options: ClassVar[dict[str, Any]] = {"level": 0.95, "samples": 6, "freedom": 5.0}

    def test_it_holds_students_interval_and_reaches_further_at_the_tail(self) -> None:
        skew, variance = Skew.of(VALUES[None]), float(VALUES.var()) / 6
        found = with_skew(1.0, variance, skew, **self.options)
        plain = symmetric(1.0, variance, **self.options)
        assert found.low == pytest.approx(plain.low)
        assert found.high > plain.high + plain.stderr
        assert found.stderr == plain.stderr

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
        plain = with_skew(1.0, 1.0, Skew.of(VALUES[None]), **self.options)
        found = with_skew(unit, unit**2, Skew.of(unit * VALUES[None]), **self.options)
        assert found.low == pytest.approx(unit * plain.low, rel=1e-12)
        assert found.high == pytest.approx(unit * plain.high, rel=1e-12)

    def test_it_covers_the_mean_of_skewed_numbers_where_students_does_not(self) -> None:
        """2000 times 48 squares of squares: skewness 5.3, as in a sum of products of gradients."""
        source = torch.Generator().manual_seed(3)
        draws = torch.randn(2000, 48, generator=source, dtype=torch.float64) ** 2
        draws = draws * torch.randn(2000, 48, generator=source, dtype=torch.float64) ** 2
        plain = skewed = 0
        for values in draws:
            options = {"level": 0.95, "samples": 48, "freedom": 47.0}
            mean, variance = float(values.mean()), float(values.var()) / 48
            found = with_skew(mean, variance, Skew.of(values[None]), **options)
            skewed += found.low <= 1 <= found.high
            found = symmetric(mean, variance, **options)
            plain += found.low <= 1 <= found.high
        assert plain / 2000 < 0.87
        assert skewed / 2000 > 0.90


class TestRatio:
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
