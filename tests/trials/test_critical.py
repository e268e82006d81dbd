"""The critical batch size from losses that are known."""

from __future__ import annotations

import math

import numpy as np
import pytest

import gradnoise as gn
from gradnoise.trials.critical import (
    LOWER,
    Fall,
    agree,
    critical_batch_size,
    largest_within,
    share_at,
)  # fmt: skip

SIZES = (4.0, 16.0, 64.0, 256.0)
SHARES = (1.0, 0.5, 0.25, 0.125)


def losses_of(scale: float, seeds: int = 3) -> tuple[dict[float, np.ndarray], ...]:
    """Losses 1/samples where batches of B take 1 + B/scale times the samples, seeds 1 % apart."""
    spread = 1 + 0.01 * np.arange(seeds)
    cost = {size: (1 + size / scale) / (1 + SIZES[0] / scale) for size in SIZES}
    return (
        {size: factor * spread for size, factor in cost.items()},
        {share: spread / share for share in SHARES},
    )


@pytest.mark.parametrize("scale", [5.0, 16.0, 100.0])
def test_the_way_by_shares_is_exact_on_its_own_model(scale: float) -> None:
    """Up to interpolation of the curve; `LOWER` is what training was found to be above it."""
    found = critical_batch_size(*losses_of(scale))
    assert float(found) == pytest.approx(LOWER * scale, rel=0.15)
    assert found.low < float(found) < found.high


def test_the_way_by_the_fall_of_the_loss() -> None:
    """ε·trΣ/D, with D the fall per e-fold from a quarter of the samples to all."""
    curve = {1.0: 2.0, 0.5: 3.0, 0.25: 5.0}
    assert Fall(6.0, 0.5).batch_size(curve) == pytest.approx(0.5 * 6.0 * math.log(4) / 3.0)
    assert math.isnan(Fall(6.0, 0.5).batch_size({1.0: 2.0, 0.5: 1.0}))
    assert math.isnan(Fall(6.0, 0.5).batch_size({1.0: 2.0}))


def test_both_ways_agree_where_they_are_close() -> None:
    losses, curve = losses_of(16.0)
    by_shares = float(critical_batch_size(losses, curve))
    unit = Fall(1.0, 1.0).batch_size({share: float(v.mean()) for share, v in curve.items()})
    for factor, same in ((1.0, True), (1.9, True), (2.1, False), (0.4, False)):
        fall = Fall(factor * by_shares / unit, 1.0)
        assert agree(losses, curve, fall) == same
        both = critical_batch_size(losses, curve, fall)
        assert float(both) == pytest.approx(by_shares * math.sqrt(factor), rel=1e-6)
    assert not agree(losses, curve, None)


def test_one_seed_gives_no_upper_end() -> None:
    found = critical_batch_size(*losses_of(16.0, seeds=1))
    assert found.high == math.inf


@pytest.mark.parametrize("scale", [1e-3, 1e6])
def test_beyond_the_batch_sizes_there_is_a_bound_alone(scale: float) -> None:
    found = critical_batch_size(*losses_of(scale))
    assert math.isnan(float(found))
    assert found.status is gn.Status.BEYOND_GRID
    assert (found.low == 0.0) == (scale < 1)
    assert (found.high == math.inf) == (scale > 1)


def test_losses_that_do_not_fall_tell_nothing() -> None:
    flat = {size: np.ones(3) for size in SIZES}, {share: np.ones(3) for share in SHARES}
    assert math.isnan(float(critical_batch_size(*flat)))


@pytest.mark.parametrize(
    ("loss", "share"), [(1.0, 1.0), (2.0, 0.5), (9.0, 0.25), (0.5, 1.0), (3.0, math.sqrt(0.125))]
)
def test_a_share_is_where_the_smallest_batch_size_had_the_loss(loss: float, share: float) -> None:
    assert share_at(loss, {1.0: 1.0, 0.5: 2.0, 0.25: 4.0}) == pytest.approx(share)


def test_a_curve_that_rises_by_noise_counts_as_flat_there() -> None:
    assert share_at(2.0, {1.0: 1.0, 0.5: 3.0, 0.25: 2.0}) == pytest.approx(0.5)
    assert math.isnan(share_at(1.0, {1.0: 1.0}))


def test_the_largest_batch_size_within_a_tolerance_is_interpolated() -> None:
    losses = {4.0: np.array([1.0, 1.0]), 16.0: np.array([1.2, 1.2])}
    assert float(largest_within(losses, 0.1)) == pytest.approx(8.0)
    assert math.isnan(float(largest_within(losses, 0.3)))
    assert largest_within(losses, 0.3).high == math.inf
