"""Where a function first rises above its start, and at how many points it was looked at."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from gradnoise.estimators.curvature.first_rise import FACTOR, first_rise


class Counted:
    def __init__(self, function: Callable[[float], float]) -> None:
        self.function, self.points = function, list[float]()

    def __call__(self, at: float) -> float:
        self.points.append(at)
        return self.function(at)


@pytest.mark.parametrize("start", [1e-4, 0.3, 2.0, 2.9, 3.0, 3.1, 40.0, 1e5])
def test_of_a_quadratic_it_is_the_root_at_once(start: float) -> None:
    f = Counted(lambda x: x * x - 3 * x)
    low, high = first_rise(f, slope=3.0, start=start)
    assert low == high == pytest.approx(3, rel=1e-12)
    far = abs(math.log10(start / 3))
    assert len(f.points) <= 4 + far  # ten times further at every point


@pytest.mark.parametrize(
    ("f", "root"),
    [
        (lambda x: x**4 - 8 * x, 2.0),
        (lambda x: math.sinh(x) - 2 * x, 2.17731898),
        (lambda x: abs(x - 1) - 1, 2.0),
        (lambda x: -x if x < 1 else 50 * (x - 1) - 1, 1.02),
        (lambda x: x * (1 - math.exp(1 - x)) / (math.e - 1), 1.0),
        (lambda x: -x if x < 0.7 else 1e9, 0.7),
        (lambda x: -x if x < 0.7 else math.inf, 0.7),
    ],
    ids=["quartic", "sinh", "kink", "wall", "saturating", "cliff", "not finite"],
)
@pytest.mark.parametrize("start", [1e-3, 0.1, 1.5, 300.0])
def test_of_other_functions_within_the_tolerance(
    f: Callable[[float], float], root: float, start: float
) -> None:
    counted = Counted(f)
    slope = -f(1e-9) / 1e-9
    low, high = first_rise(counted, slope, start)
    assert low == high == pytest.approx(root, rel=2e-3)
    assert low in counted.points
    assert math.isfinite(f(low))
    assert len(counted.points) <= 25


def test_the_first_of_several_is_found() -> None:
    assert first_rise(lambda x: -math.sin(x), 1.0, 0.5)[0] == pytest.approx(math.pi, rel=1e-3)


def test_what_never_rises_is_followed_up_to_the_factor() -> None:
    f = Counted(lambda x: -x)
    low, high = first_rise(f, 1.0, 0.01)
    assert low >= FACTOR * 0.01
    assert low in f.points
    assert math.isinf(high)


def test_what_rises_at_every_point_is_followed_down() -> None:
    f = Counted(lambda x: x - 1e-15)
    low, high = first_rise(f, 1.0, 1.0)
    assert low == 0
    assert 0 < high <= 1 / FACTOR
    assert high in f.points


def test_what_rounding_can_make_is_no_rise() -> None:
    """Fluctuations of 1e-9 about x² - x: at 1e-7 they are larger than the fall."""

    def f(x: float) -> float:
        return x * x - 1e-3 * x + 1e-9 * math.cos(1e12 * x)

    low, high = first_rise(f, 1e-3, 1e-8, rounding=2e-9)
    assert low == high == pytest.approx(1e-3, rel=1e-2)
    assert first_rise(f, 1e-3, 1e-8)[0] < 1e-5


@pytest.mark.parametrize("start", [1e-8, 1e-3, 0.8, 1.3, 50.0])
def test_where_a_fall_shows_rounding_does_not_move_the_root(start: float) -> None:
    low, high = first_rise(lambda x: x * x - x, 1.0, start, rounding=0.05)
    assert low == high == pytest.approx(1, rel=1e-3)


def test_points_too_near_to_make_a_difference_are_passed() -> None:
    def f(x: float) -> float:
        return x * x - 1e-3 * x if x > 1e-6 else 0.0

    low, high = first_rise(f, 1e-3, 1e-9, rounding=2e-9)
    assert low == high == pytest.approx(1e-3, rel=1e-3)


def test_points_within_rounding_say_nothing_about_the_slope() -> None:
    f = Counted(lambda x: x * x - 0.9 * x + (0.15 if x < 0.5 else 0.0))
    low, high = first_rise(f, 0.9, 0.1, rounding=0.2)
    assert low == high == pytest.approx(0.9, rel=1e-3)
    assert all(0.1 <= at <= 1 for at in f.points)
