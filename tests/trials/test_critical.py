"""The critical batch size from losses after equal samples."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gradnoise.statistics.estimate import Status
from gradnoise.trials.critical import (
    ALONE,
    APART,
    BEYOND,
    BOTH,
    BY_FALL,
    BY_SHARES,
    ONE_SEED,
    Fall,
    _interval,
    agree,
    critical_batch_size,
    fall_of,
    largest_within,
    shares_of,
)

SIZES = (4.0, 16.0, 64.0, 256.0)


def loss_at(samples: float) -> float:
    """What very small batches reach: it falls by 0.1 for every e-fold of the samples."""
    return 2.0 - 0.1 * math.log(samples)


def losses(critical: float, seeds: int = 3, noise: float = 0.0) -> dict[float, np.ndarray]:
    """After 1000 samples, where B needs (1 + B/B_crit) times the fewest samples."""
    source = np.random.default_rng(0)
    return {
        size: loss_at(1000 / (1 + size / critical)) + noise * source.standard_normal(seeds)
        for size in SIZES
    }


def curve(critical: float, seeds: int = 3) -> dict[float, np.ndarray]:
    effective = 1000 / (1 + SIZES[0] / critical)
    shares = (1.0, 0.5, 0.25, 0.125, 0.03125)
    return {share: np.full(seeds, loss_at(share * effective)) for share in shares}


@pytest.mark.parametrize("critical", [20.0, 60.0, 200.0])
def test_shares_give_back_what_the_losses_were_made_with(critical: float) -> None:
    found = critical_batch_size(losses(critical), curve(critical))
    assert found.is_resolved
    assert float(found) == pytest.approx(BY_SHARES * critical, rel=2e-2)
    assert found.low < critical < found.high


def test_the_fall_of_the_loss_gives_it_as_well() -> None:
    # D = 0.1 per e-fold: ε·trΣ/D = 0.5·8/0.1
    fall = Fall(trace_cov=8.0, lr=0.5)
    assert fall.batch_size({1.0: loss_at(1000), 0.5: loss_at(500), 0.25: loss_at(250)}) == (
        pytest.approx(40.0)
    )
    assert fall.batch_size({1.0: loss_at(1000), 0.5: loss_at(500)}) == pytest.approx(40.0)
    both = critical_batch_size(losses(20.0), curve(20.0), fall)
    by_shares, by_fall = BY_SHARES * 20.0, BY_FALL * 40.0
    assert float(both) == pytest.approx(math.sqrt(by_shares * by_fall), rel=2e-2)


@pytest.mark.parametrize(
    ("apart", "agrees"), [(1.9, True), (2.1, False), (0.55, True), (0.45, False)]
)
def test_both_ways_agree_within_a_factor_of_two(apart: float, agrees: bool) -> None:
    fall = Fall(trace_cov=8.0, lr=apart * BY_SHARES * 20.0 / BY_FALL * 0.1 / 8.0)
    assert agree(losses(20.0), curve(20.0), fall) is agrees
    assert not agree(losses(20.0), curve(20.0), None)


def test_both_ways_have_a_narrower_interval_than_one() -> None:
    one = critical_batch_size(losses(40.0), curve(40.0))
    both = critical_batch_size(losses(40.0), curve(40.0), Fall(8.0, 1.0))
    assert both.high / both.low < one.high / one.low


def test_the_spread_of_the_seeds_widens_the_interval() -> None:
    calm = critical_batch_size(losses(40.0), curve(40.0))
    noisy = critical_batch_size(losses(40.0, noise=0.01), curve(40.0))
    assert noisy.high / noisy.low > calm.high / calm.low


def test_a_bound_that_is_very_far_off_is_none() -> None:
    apart = losses(60.0)
    for size in SIZES[1:]:
        apart[size] = apart[size] + np.array([0.3, -0.15, 0.0])
    found = critical_batch_size(apart, curve(60.0))
    assert found.is_resolved
    assert (found.low, found.high) == (0.0, math.inf)


@pytest.mark.parametrize("factor", [0.95, 1.05])
def test_a_number_is_told_somewhat_beyond_the_batch_sizes(factor: float) -> None:
    critical = factor * BEYOND * SIZES[-1]
    found = critical_batch_size(losses(critical / BY_SHARES), curve(critical / BY_SHARES))
    assert found.is_resolved is (factor < 1)
    assert found.low < critical < found.high


def test_beyond_the_batch_sizes_there_is_only_a_bound() -> None:
    found = critical_batch_size(losses(1e5), curve(1e5))
    assert found.status is Status.BEYOND_GRID
    assert math.isnan(float(found))
    assert found.high == math.inf
    assert 0 < found.low <= BEYOND * SIZES[-1]


def test_a_loss_that_does_not_fall_tells_nothing() -> None:
    flat = {size: np.full(3, 1.0) for size in SIZES}
    rising = {1.0: np.full(3, 1.1), 0.5: np.full(3, 1.0), 0.25: np.full(3, 0.9)}
    found = critical_batch_size(flat, rising, Fall(8.0, 0.5))
    assert found.status is Status.BEYOND_GRID
    assert (found.low, found.high) == (0.0, math.inf)


def test_one_batch_size_tells_nothing() -> None:
    alone = {4.0: np.full(3, loss_at(1000))}
    found = critical_batch_size(alone, curve(40.0), None)
    assert math.isnan(float(found))
    assert (found.low, found.high) == (0.0, math.inf)
    assert math.isnan(float(critical_batch_size(alone, curve(40.0), Fall(8.0, 0.2))))


def test_the_interval_of_one_seed_has_what_the_seeds_would_show() -> None:
    one = critical_batch_size(losses(40.0, seeds=1), curve(40.0, seeds=1))
    calm = critical_batch_size(losses(40.0), curve(40.0))
    assert float(one) == pytest.approx(float(calm))
    assert calm.high / calm.low < one.high / one.low
    assert one.high / float(one) == pytest.approx(math.exp(1.96 * ONE_SEED), rel=1e-3)
    assert float(one) / one.low == pytest.approx(math.exp(1.96 * ONE_SEED), rel=1e-3)


def test_one_seed_that_says_more_than_all_batch_sizes_is_a_bound() -> None:
    found = critical_batch_size(losses(1e6, seeds=1), curve(1e6, seeds=1))
    assert math.isnan(float(found))
    assert found.low == pytest.approx(BEYOND * SIZES[-1] * math.exp(-1.96 * ONE_SEED), rel=1e-3)
    assert found.high == math.inf


def test_of_one_seed_the_largest_batch_within_a_tolerance_has_an_open_interval() -> None:
    found = largest_within({4.0: np.full(1, 1.0), 16.0: np.full(1, 1.2)}, 0.05)
    assert 4.0 < float(found) < 16.0
    assert (found.low, found.high) == (0.0, math.inf)


@pytest.mark.parametrize(("loss", "share"), [(1.0, 1.0), (1.1, 0.5), (1.2, 0.25), (5.0, 0.25)])
def test_the_share_of_a_loss(loss: float, share: float) -> None:
    curve = {0.25: 1.2, 1.0: 1.0, 0.5: 1.1}
    assert shares_of([1.0, loss, math.inf], curve) == pytest.approx([1.0, share, 0.25])


def test_noise_in_the_curve_does_not_make_a_share_jump() -> None:
    assert shares_of([1.0, 1.0], {0.25: 1.2, 0.5: 1.25, 1.0: 1.0}) == pytest.approx([1.0, 1.0])
    assert all(math.isnan(share) for share in shares_of([1.0, 1.0], {0.5: 1.0, 1.0: 1.0}))


def test_shares_are_relative_to_the_smallest_batch_also_where_a_shorter_run_ends_lower() -> None:
    """It has the loss 1.0 after a third of the samples already, and 1.1 after a quarter."""
    curve = {0.25: 1.1, 0.5: 0.8, 1.0: 1.0}
    third = 0.25 * 2 ** (0.1 / 0.3)
    assert shares_of([1.0, 0.9, 1.1], curve) == pytest.approx([1.0, 1.0, 0.25 / third])


def test_the_fall_of_a_loss_that_hardly_falls_does_not_decide() -> None:
    """ε·trΣ/D is a thousand times what the samples say: the value is twice that, not 30 times."""
    alone = critical_batch_size(losses(40.0), curve(40.0))
    floor = Fall(8.0, 1000 * BY_SHARES * 40.0 / BY_FALL * 0.1 / 8.0)
    both = critical_batch_size(losses(40.0), curve(40.0), floor)
    assert float(both) == pytest.approx(math.sqrt(APART) * float(alone), rel=1e-6)
    assert both.high / both.low == pytest.approx(alone.high / alone.low, rel=1e-6)


def test_the_largest_batch_within_a_tolerance() -> None:
    found = largest_within(
        {4.0: np.full(3, 1.0), 16.0: np.full(3, 1.03), 64.0: np.full(3, 1.07)}, 0.05
    )
    assert float(found) == pytest.approx(32.0)  # halfway in ln B between 16 and 64
    assert found.low == pytest.approx(float(found)) == found.high
    whole = largest_within({4.0: np.full(3, 1.0), 16.0: np.full(3, 1.01)}, 0.05)
    assert whole.status is Status.BEYOND_GRID
    assert (whole.low, whole.high) == (16.0, math.inf)


def test_below_the_batch_sizes_there_is_a_bound_as_well() -> None:
    found = critical_batch_size(losses(0.3), curve(0.3))
    assert math.isnan(float(found))
    assert found.high == pytest.approx(SIZES[0] / BEYOND * math.exp(1.96 * ALONE), rel=1e-3)
    assert found.low == 0.0


def test_the_fall_is_that_from_a_quarter_of_the_samples_on() -> None:
    fallen = {1.0: 1.0, 0.5: 1.2, 0.25: 1.4, 0.125: 9.0}
    assert Fall(8.0, 0.5).batch_size(fallen) == pytest.approx(4 * math.log(4) / 0.4)


def test_a_share_below_the_shortest_run_is_only_a_bound() -> None:
    longer = {share: values for share, values in curve(20.0).items() if share >= 0.25}
    found = critical_batch_size(losses(20.0), longer)
    assert float(found) == pytest.approx(BY_SHARES * 20.0, rel=2e-2)


def test_an_interval_of_bounds_is_open() -> None:
    assert _interval(math.inf, [10.0, 20.0, 30.0], 0.95, 0.5) == (
        pytest.approx(10 * math.exp(-0.5)), math.inf,
    )  # fmt: skip
    assert _interval(5.0, [math.nan] * 3, 0.95, 0.5) == (0.0, math.inf)


def test_the_spread_of_seeds_is_a_jackknife() -> None:
    _, high = _interval(10.0, [8.0, 10.0, 12.5], 0.95, 0.0)
    error = math.sqrt(4 / 3) * math.log(1.25)  # (n - 1)/n·Σ of squares
    assert high == pytest.approx(10 * math.exp(4.3027 * error), rel=1e-3)


def test_the_factors_are_those_that_training_was_held_to() -> None:
    """A change of them needs `python -m benchmarks.advice critical` and docs/advice.md."""
    assert (BY_SHARES, BY_FALL, APART, BOTH, ALONE, ONE_SEED) == (1.7, 0.5, 4.0, 0.45, 0.6, 0.75)


def test_of_a_batch_size_that_gained_little_the_share_is_only_a_bound() -> None:
    """Large batches end at what the first steps gain; they may need more samples than that."""
    truth, flat = losses(20.0), losses(20.0)
    flat[64.0] = flat[256.0] = flat[16.0] + 0.02
    start = float(flat[256.0][0]) + 0.01
    half = (start - float(flat[4.0].mean())) / 2
    assert start - float(flat[16.0].mean()) < half  # the nearest one counts in any case
    found = critical_batch_size(flat, curve(20.0), start=start)
    assert float(found) == pytest.approx(float(critical_batch_size(truth, curve(20.0))), rel=2e-2)
    assert float(critical_batch_size(flat, curve(20.0))) > 2 * float(found)


def test_of_a_batch_size_that_made_half_of_the_gain_the_share_counts() -> None:
    known = losses(20.0)
    known[16.0] = known[16.0] + 0.05  # then the fit needs the others
    lowest, there = (float(known[size].mean()) for size in (4.0, 256.0))
    for start, same in ((2 * there - lowest + 0.001, True), (2 * there - lowest - 0.001, False)):
        found = critical_batch_size(known, curve(20.0), start=start)
        assert (float(found) == float(critical_batch_size(known, curve(20.0)))) is same


def test_both_ways_are_compared_with_the_same_shares() -> None:
    """Where two batch sizes gained little B_crit by shares is less, and the ways do not agree."""
    flat = losses(20.0)
    flat[64.0] = flat[256.0] = flat[16.0] + 0.02
    start = float(flat[256.0][0]) + 0.01
    by_shares = float(critical_batch_size(flat, curve(20.0)))
    fall = Fall(trace_cov=8.0, lr=by_shares / BY_FALL * 0.1 / 8.0)
    assert agree(flat, curve(20.0), fall)
    assert not agree(flat, curve(20.0), fall, start)


def test_without_parts_the_fall_is_not_known() -> None:
    assert fall_of({1.0: 2.0}) == 0.0
    assert fall_of({1.0: 2.0, 0.5: 2.5}) == pytest.approx(0.5 / math.log(2))


def test_the_largest_gain_may_be_that_of_a_larger_batch() -> None:
    """64 gained less than half of what 16 did, and more than half of what 4 did."""
    known = losses(20.0)
    known[16.0], known[64.0] = known[4.0] - 0.5, known[4.0] + 0.05
    start = float(known[4.0].mean()) + 0.4
    found = critical_batch_size(known, curve(20.0), start=start)
    assert float(found) != float(critical_batch_size(known, curve(20.0)))
