"""B_crit = ε_max·trΣ/D of a run whose losses, noise and sharpness are known."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from gradnoise.history.critical import CriticalBatch
from gradnoise.statistics.estimate import Status

STEPS = range(10, 4000, 10)


def followed(fall: float = 0.5, trace: float = 8.0, noise: float = 0.0, seed: int = 0):
    """A run with L = 5 - fall·ln t, trΣ, |G|² = 0.1 and λ = 4."""
    draw = np.random.default_rng(seed)
    found = CriticalBatch()
    for step in STEPS:
        found.add(step, 5 - fall * math.log(step) + noise * draw.standard_normal(), trace, 0.1)
    found.add_sharpness(STEPS[-1], 4.0)
    return found


def test_it_is_where_noise_and_curvature_allow_the_same_rate() -> None:
    found = followed().result()
    assert float(found) == pytest.approx(2 / 4 * 8 / 0.5)
    assert (found.low, found.high) == pytest.approx((8 / 2, 80 * 2))  # B_simple = 80


def test_of_the_steps_ahead_it_is_larger() -> None:
    """The loss falls by D·n/(t + n) per e-fold of n."""
    known = followed()
    assert float(known.result(ahead=known.step)) == pytest.approx(2 * float(known.result()))
    assert float(known.result(ahead=9 * known.step)) == pytest.approx(
        10 / 9 * float(known.result())
    )


def test_momentum_and_a_metric_change_the_limit() -> None:
    known = followed()
    known._curvature = [0.0, 0.0]
    known.add_sharpness(100, 4.0, momentum=0.5, factor=3.0)
    assert float(known.result()) == pytest.approx(2 / (0.5 * 4 / 3) * 8 / 0.5)


def test_late_steps_weigh_more() -> None:
    """Every step t weighs t: of two values, each in half of the run, the last one has 3/4."""
    found = CriticalBatch()
    for step in range(1, 2001):
        late = step > 1000
        found.add(step, 5 - math.log(step), 2.0 if late else 1.0, 0.1)
        found.add_sharpness(step, 7.0 if late else 3.0)
    assert float(found.result()) == pytest.approx(2 / 6 * 1.75, rel=1e-3)


@pytest.mark.parametrize("seed", range(3))
def test_the_slope_is_that_of_weighted_least_squares(seed: int) -> None:
    draw = np.random.default_rng(seed)
    steps = np.sort(draw.integers(1, 1000, 40)).astype(float)
    losses = draw.standard_normal(40)
    found = CriticalBatch()
    for step, loss in zip(steps.tolist(), losses.tolist(), strict=True):
        found.add(step, loss, 1.0, 1.0)
    root = np.sqrt(steps)
    columns = np.stack([root, root * np.log(steps)], 1)
    expected = np.linalg.lstsq(columns, root * losses, rcond=None)[0][1]
    assert found._slope.value()[0] == pytest.approx(-expected, rel=1e-7)


def test_its_standard_error_is_the_spread_of_the_slope() -> None:
    runs = [followed(noise=0.3, seed=k)._slope.value() for k in range(400)]
    slopes, errors = zip(*runs, strict=True)
    assert np.mean(slopes) == pytest.approx(0.5, abs=0.01)
    assert np.median(errors) == pytest.approx(np.std(slopes), rel=0.1)


def test_the_interval_allows_for_two_standard_errors_of_both_slopes() -> None:
    known = followed(noise=0.5, seed=1)
    ends = [(d - 2 * e, d + 2 * e) for d, e in (known._slope.value(), known._late.value())]
    low, high = min(own[0] for own in ends), max(own[1] for own in ends)
    assert known.fall() == (known._slope.value()[0], low, high)
    assert low > 0
    assert known.result().high == pytest.approx(2 * max(80, 2 / 4 * 8 / low))
    assert known.result().low == pytest.approx(min(80, 2 / 4 * 8 / high) / 2)
    noisy = (followed(noise=6.0, seed=k) for k in range(99))
    unsure = next(own for own in noisy if own.fall()[0] > 0 > own.fall()[1])
    assert math.isinf(unsure.result().high)


def test_a_curve_that_bends_has_a_wider_interval() -> None:
    """L = 2 exp(-t/100) on a plateau: the slope lags, and the later one less."""
    found = CriticalBatch()
    for step in range(5, 1001, 5):
        found.add(step, 2 * math.exp(-step / 100), 8.0, 0.1)
    found.add_sharpness(1000, 4.0)
    slope, late = (own.value()[0] for own in (found._slope, found._late))
    assert 0 < late < 0.6 * slope
    assert found.result().high > 2 * 2 / 4 * 8 / late


def test_without_b_simple_the_interval_is_a_factor_five() -> None:
    known = CriticalBatch()
    for step in STEPS:
        known.add(step, 5 - math.log(step), 8.0, -0.1)
    known.add_sharpness(100, 4.0)
    assert math.isnan(known.simple)
    assert (known.result().low, known.result().high) == pytest.approx((4 / 5, 20))


def test_a_loss_that_does_not_fall_gives_a_bound() -> None:
    found = followed(fall=-0.5).result()
    assert math.isnan(float(found))
    assert found.status is Status.NO_DESCENT
    assert found.low == pytest.approx(40)  # half of B_simple
    assert math.isinf(found.high)
    noisy = next(
        own for own in (followed(0.0, noise=1.0, seed=k) for k in range(99)) if own.fall()[0] < 0
    )
    assert noisy.fall()[2] > 0
    assert noisy.result().low == min(80, 4 / noisy.fall()[2]) / 2


@pytest.mark.parametrize("missing", ["losses", "sharpness", "few", "flat"])
def test_what_is_not_known_has_no_interval(missing: str) -> None:
    found = CriticalBatch()
    for step in range(1, 5 if missing == "few" else 30):
        found.add(step, math.nan if missing == "losses" else -math.log(step), 1.0, 1.0)
    if missing != "sharpness":
        found.add_sharpness(30, 0.0 if missing == "flat" else math.inf)
        found.add_sharpness(30, 0.0 if missing == "flat" else 1.0)
    assert found.result().status is Status.NO_INTERVAL
    found.add_sharpness(31, 1.0)
    for step in range(30, 60):
        found.add(step, -math.log(step), 1.0, 1.0)
    assert float(found.result()) > 0


def test_it_goes_on_from_its_state() -> None:
    whole, first = followed(noise=0.1), CriticalBatch()
    draw = np.random.default_rng(0)
    losses = [5 - 0.5 * math.log(t) + 0.1 * draw.standard_normal() for t in STEPS]
    lines = list(zip(STEPS, losses, strict=True))
    for step, loss in lines[:100]:
        first.add(step, loss, 8.0, 0.1)
    rest = CriticalBatch()
    rest.load_state_dict(json.loads(json.dumps(first.state_dict())))
    for step, loss in lines[100:]:
        rest.add(step, loss, 8.0, 0.1)
    rest.add_sharpness(STEPS[-1], 4.0)
    assert rest.state_dict() == whole.state_dict()


def test_a_unit_of_the_loss_drops_out() -> None:
    """With c times the loss, λ and D have the factor c and trΣ has c²; B_crit stays."""
    found = CriticalBatch()
    for step in STEPS:
        found.add(step, 7 * (5 - 0.5 * math.log(step)), 49 * 8.0, 49 * 0.1)
    found.add_sharpness(STEPS[-1], 7 * 4.0)
    known = followed().result()
    assert float(found.result()) == pytest.approx(float(known))


def test_large_losses_do_not_cancel() -> None:
    plain, large = followed(noise=0.1), CriticalBatch()
    draw = np.random.default_rng(0)
    for step in STEPS:
        loss = 5 - 0.5 * math.log(step) + 0.1 * draw.standard_normal()
        large.add(step, 1e8 + loss, 8.0, 0.1)
    assert large.fall() == pytest.approx(plain.fall(), rel=1e-4)


def test_a_sharpness_that_is_not_positive_is_left_out() -> None:
    known = followed()
    for value in (-50.0, 0.0, math.nan):
        known.add_sharpness(4000, value)
    assert float(known.result()) == pytest.approx(8.0)
