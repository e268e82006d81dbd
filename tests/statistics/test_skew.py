"""Skewness of estimates: cumulants by enumeration, critical values by Hall's equation."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from gradnoise.statistics.skew import Skew
from tests.formulas import skew_of

VALUES = torch.tensor([0.0, 1.0, 1.5, 7.0, -2.0, 0.5], dtype=torch.float64)


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


class TestCriticalValues:
    @pytest.mark.parametrize("third", [0.5, 0.05, 1e-6, -0.5, 3.0])
    @pytest.mark.parametrize("coupling", [0.5, 0.0, -0.2])
    def test_an_end_solves_halls_equation_or_is_students(
        self, third: float, coupling: float
    ) -> None:
        t = 2.0
        down, up = skew_of(third, coupling).critical_values((1.0,), 1.0, t)
        a = coupling / 2 - third / 6
        for value, end in ((down, 1.0), (up, -1.0)):
            T = end * value
            normal = T + a * T**2 + a**2 * T**3 / 3 + third / 6
            if value > t:
                assert normal == pytest.approx(end * t, rel=1e-9)
            else:
                assert value == t
                assert end * normal >= t - 1e-9

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
        assert all(value >= 2 for value in skew_of(third).critical_values((1.0,), 1.0, 2.0))


def test_some_of_the_samples_tell_the_skewness_of_the_mean_of_all() -> None:
    numbers = torch.tensor([[0.0, 1.0, 5.0, 2.0]])
    few, all_of_them = Skew.of_some(numbers, 8, 20.0), Skew.of(numbers.repeat(1, 2), 20.0)
    third = 4 / (3 * 2) * float(((numbers - 2) ** 3).sum())
    factor = 1 / 8 - 1 / 20
    assert float(few.third) == pytest.approx(factor * (1 / 8 - 2 / 20) * third)
    assert float(few.coupling) == pytest.approx(factor**2 * third)
    assert float(few.third) > float(all_of_them.third)  # K₃ has 1/((n - 1)(n - 2))
