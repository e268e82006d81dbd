"""The limits side by side: formulas at given numbers, intervals, the sentence on their order."""

import math
from dataclasses import replace

import numpy as np
import pytest

from gradnoise.learning_rate.mean_square import CurvatureSpread
from gradnoise.statistics.estimate import Status
from tests.landscapes import AT_LEAST, INF, NEGATIVE, UNKNOWN, estimate, landscape


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


@pytest.mark.parametrize(
    ("lr", "share"),  # ε_opt = 0.0625 there, and ΔL/ΔL_max 1/4
    [(0.0625, 0.25), (0.03125, 0.1875), (0.0001, 0.00079936), (0.2, -0.96)],
)
def test_the_gain_of_a_step_is_a_share_of_the_best(lr, share) -> None:
    assert landscape(estimate(96.0)).speed(lr, 32) == pytest.approx(share)


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
        (
            estimate(960.0),
            estimate(2.0),
            "beyond 0.471, 29.2 times the rule, training is unstable at this point",
        ),
        (estimate(3.0), estimate(960.0), "unstable at this point beyond 0.0161, 28.3 times below"),
        (estimate(96.0), estimate(2.0), "beyond 0.471, 3.76 times the rule, training is unstable"),
        (estimate(960.0), estimate(2.0), "beyond 0.0161 (noise-scale rule) a step gains less;"),
        (estimate(24.0), estimate(2.0), "At B = 32 the limits agree within a factor 1.65."),
        (estimate(3.0), estimate(32.0), "At B = 32 the limits agree within a factor 1.83."),
        (estimate(8.0), estimate(8.0), "At B = 32 the limits agree within a factor 1.00."),
        (AT_LEAST, estimate(2.0), "unstable at this point beyond 0.471. How much noise slows"),
        (UNKNOWN, UNKNOWN, "cannot be compared: measure more samples"),
        (NEGATIVE, estimate(2.0), "there is no limit: the curvature is negative"),
    ],
)
def test_the_reading_says_how_they_compare(noise_scale, curvature, said) -> None:
    assert said in landscape(noise_scale, curvature=curvature).limits(32).reading


def test_the_noise_of_the_steps_doubles_the_loss() -> None:
    parts = {"loss": estimate(1.0, 0.5, 2.0), "trace_cov": estimate(8.0, 4.0, 16.0)}
    found = landscape(estimate(96.0), curvature=estimate(0.0), **parts).doubling_lr(4)
    assert float(found) == 0.4  # 1/(2 + 8/16)
    assert (found.low, found.high) == pytest.approx((1 / (2 + 2), 1 / (2 + 1 / 8)))
    ball = landscape(estimate(96.0), curvature=estimate(0.0), momentum=0.5, **parts)
    assert float(ball.doubling_lr(4)) == pytest.approx(1 / (4 / 3 + 1))
    finite = landscape(estimate(96.0), curvature=estimate(0.0), population=8.0, **parts)
    assert float(finite.doubling_lr(4)) == pytest.approx(1 / (2 + 8 / 32))
    assert float(finite.doubling_lr(99)) == 0.5  # the whole population


@pytest.mark.parametrize("loss", [None, estimate(-1.0), estimate(0.5, -0.1, 1.1)])
def test_a_loss_that_may_be_negative_cannot_double(loss) -> None:
    found = landscape(estimate(96.0), loss=loss, trace_cov=estimate(8.0)).doubling_lr(4)
    assert math.isnan(float(found))
    assert (found.low, found.high) == (0, INF)


def test_negative_curvature_doubles_nothing() -> None:
    parts = {"loss": estimate(1.0), "trace_cov": estimate(8.0)}
    found = landscape(estimate(96.0), NEGATIVE, **parts).doubling_lr(4)
    assert found.status is Status.NEGATIVE_CURVATURE
    assert (found.low, found.high) == (-INF, INF)


@pytest.mark.parametrize("converged", [True, False])
def test_where_directions_may_be_missing_the_mean_square_limit_is_open_below(
    converged: bool,
) -> None:
    rows = np.random.default_rng(0).standard_normal((4000, 6))
    matrices = rows[:, :, None] * rows[:, None, :]  # least squares, all directions equally sharp
    spread = CurvatureSpread.of(matrices[:, :3, :3], converged)
    bowl = landscape(estimate(96.0), estimate(spread.mean[0][0]), estimate(2.0))
    known = replace(bowl, spread=spread)
    assert (known.mean_square_lr(1).low > 0) is converged
    assert known.mean_square_lr(1000).low > 0  # there the last direction changes little
    assert known.mean_square_lr(1).high == known.mean_square_lr(1).value
    alone = replace(bowl, spread=CurvatureSpread.of(matrices[:, :1, :1], converged))
    assert (alone.mean_square_lr(1000).low > 0) is converged
