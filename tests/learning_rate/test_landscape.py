"""The limits side by side: formulas at given numbers, intervals, the sentence on their order."""

import math

import pytest

from gradnoise.learning_rate.mean_square import CurvatureSpread
from gradnoise.statistics.estimate import Status
from tests.learning_rate.test_advice import AT_LEAST, NEGATIVE, UNKNOWN, estimate, landscape

INF = math.inf


def test_the_limits_are_the_formulas() -> None:
    limits = landscape(estimate(96.0)).limits(32)
    assert float(limits.noise_scale_rule) == 0.125
    assert float(limits.one_step) == pytest.approx(2 * 0.25 / 4)
    assert float(limits.mean_square) == pytest.approx(0.5 / (1 + 2 / 32))


def test_with_momentum_one_gradient_is_shared_out_over_several_steps() -> None:
    plain = landscape(estimate(96.0)).limits(32)
    ball = landscape(estimate(96.0), optimizer="sgd", momentum=0.75).limits(32)
    average = landscape(estimate(96.0), optimizer="adam", momentum=0.75).limits(32)
    assert float(ball.one_step) == pytest.approx(float(plain.one_step) / 4)
    assert float(average.one_step) == pytest.approx(float(plain.one_step))


def test_intervals_span_the_formulas_at_the_ends() -> None:
    found = landscape(estimate(96.0, 64.0, 160.0), estimate(4.0, 2.0, 5.0))
    rule, steps, samples = found.max_lr(32), found.steps(32), found.samples(32)
    assert (rule.low, rule.high) == pytest.approx((2 / 5 / 6, 1 / 3))
    assert (steps.low, float(steps), steps.high) == pytest.approx((3, 4, 6))
    assert (samples.low, float(samples), samples.high) == pytest.approx((1.2, 4 / 3, 1.5))


def test_costs_of_an_open_noise_scale_are_open_too() -> None:
    found = landscape(AT_LEAST)
    assert (found.steps(100).low, found.steps(100).high) == (4, INF)
    assert (found.samples(100).low, found.samples(100).high) == (1, pytest.approx(4 / 3))
    assert math.isnan(float(found.steps(100)))
    assert landscape(UNKNOWN).samples(100).high == INF
    assert landscape(NEGATIVE).steps(100).status is Status.NEGATIVE_CURVATURE


def test_the_best_step_has_the_speed_that_noise_leaves() -> None:
    found = landscape(estimate(96.0))
    best = float(found.greedy_lr(32))
    assert found.speed(best, 32) == pytest.approx(1 / 4)
    assert found.speed(2 * best, 32) == pytest.approx(0, abs=1e-15)
    assert found.speed(3 * best, 32) < 0
    assert math.isnan(landscape(AT_LEAST).speed(0.1, 32))


def test_other_directions_lower_the_mean_square_limit_with_its_interval() -> None:
    spread = CurvatureSpread(
        ((4.0, 0.0), (0.0, 3.9)), ((32.0, 0.0, 0.0), (0.0, 40.0, 0.0), (0.0, 0.0, 30.0))
    )
    wide = estimate(2.0, 1.0, 4.0)
    alone = landscape(estimate(96.0), curvature=wide).mean_square_lr(2)
    both = landscape(estimate(96.0), curvature=wide, spread=spread).mean_square_lr(2)
    factor = spread.reduction(1 / 2)
    assert 0.3 < factor < 0.95
    assert float(both) == pytest.approx(factor * float(alone))
    assert (both.low, both.high) == pytest.approx((factor * alone.low, factor * alone.high))


@pytest.mark.parametrize(
    ("noise_scale", "curvature", "said"),
    [
        (estimate(960.0), estimate(2.0), "up to 0.471, 29.2 times the noise-scale rule"),
        (estimate(3.0), estimate(960.0), "diverges beyond 0.0161, 28.3 times below"),
        (estimate(8.0), estimate(8.0), "At B = 32 the limits agree within a factor 1.00."),
        (AT_LEAST, estimate(2.0), "a run diverges beyond 0.471; what speed noise leaves"),
        (UNKNOWN, UNKNOWN, "cannot be compared: measure more samples"),
        (NEGATIVE, estimate(2.0), "no limit holds: the loss curves downwards"),
    ],
)
def test_the_reading_says_how_they_compare(noise_scale, curvature, said) -> None:
    assert said in landscape(noise_scale, curvature=curvature).limits(32).reading


@pytest.mark.parametrize(
    ("noise_scale", "curvature", "factor"), [(24.0, 2.0, "1.65"), (3.0, 32.0, "1.83")]
)
def test_limits_within_a_factor_of_two_agree(noise_scale, curvature, factor) -> None:
    found = landscape(estimate(noise_scale), curvature=estimate(curvature)).limits(32)
    assert found.reading == f"At B = 32 the limits agree within a factor {factor}."


def test_limits_beyond_a_factor_of_two_do_not() -> None:
    for noise_scale, curvature in ((96.0, 2.0), (3.0, 64.0)):  # 3.8 times, and 3 times below
        found = landscape(estimate(noise_scale), curvature=estimate(curvature)).limits(32)
        assert "limits agree" not in found.reading
