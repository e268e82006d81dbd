"""Weighted averages: their moments against sums written out, and their intervals against truth."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

import gradnoise as gn
from gradnoise.monitor.averages import Averages
from gradnoise.statistics.estimate import Status


def averaged(pairs: Tensor, decay: float) -> Averages:
    """Of measurements with one part, shape (k, 2)."""
    own = Averages(decay, 1)
    for pair in pairs.double().numpy():
        own.add(pair[:, None], 8.0)
    return own


def close(own: np.ndarray, expected: Tensor) -> None:
    np.testing.assert_allclose(own, expected.numpy(), rtol=1e-12)


@pytest.mark.parametrize("decay", [0.8, 1.0])
def test_moments_are_those_of_sums(decay: float) -> None:
    pairs = torch.rand(12, 2, dtype=torch.float64) ** 3
    own = averaged(pairs, decay)
    weights = decay ** torch.arange(11, -1, -1, dtype=torch.float64)
    total, squares = weights.sum(), weights.square().sum()
    mean = weights @ pairs / total
    gaps = pairs - mean
    close(own._mean[:, 0], mean)
    second = torch.einsum("k,ka,kb->ab", weights, gaps, gaps)
    close(own._second[..., 0], second)
    third = torch.einsum("k,ka,kb,kc->abc", weights, gaps, gaps, gaps)
    close(own._third[..., 0], third)
    assert own.effective == pytest.approx(float(total**2 / squares))
    trace = own.result(0.95).trace_cov
    variance = second[0, 0] / (total - squares / total) * squares / total**2
    assert trace.stderr == pytest.approx(math.sqrt(variance))
    assert own.samples == 8.0


def test_without_decay_it_is_the_mean() -> None:
    pairs = torch.rand(5, 2, dtype=torch.float64) + 1
    found = averaged(pairs, 1.0).result(0.9)
    assert float(found) == pytest.approx(float(pairs[:, 0].sum() / pairs[:, 1].sum()))
    assert found.samples == 5
    assert found.level == 0.9


def test_the_first_measurement_counts_in_full() -> None:
    own = averaged(torch.tensor([[6.0, 2.0]]), 0.95)
    found = own.result(0.95)
    assert (float(found), found.status) == (3.0, Status.NO_INTERVAL)
    assert (found.low, found.high) == (0.0, math.inf)


def test_without_measurements_there_is_nothing() -> None:
    found = Averages(0.95, 1).result(0.95)
    assert math.isnan(float(found))
    assert found.status is Status.NO_INTERVAL


def test_equal_measurements_do_not_tell_the_error() -> None:
    found = averaged(torch.tensor([[6.0, 2.0]] * 4), 0.95).result(0.95)
    assert (float(found), found.status) == (3.0, Status.NO_INTERVAL)


def test_a_weak_gradient_gives_a_lower_bound() -> None:
    pairs = torch.tensor([[6.0, 0.5], [5.0, -0.6], [7.0, 0.2], [6.5, -0.3]])
    found = averaged(pairs, 0.95).result(0.95)
    assert found.status is Status.SIGNAL_BELOW_NOISE
    assert found.high == math.inf
    assert found.low > 3


def test_what_is_surely_positive_is_what_the_interval_says() -> None:
    pairs = torch.rand(30, 2, dtype=torch.float64) + torch.tensor([5.0, 0.2])
    own = averaged(pairs, 0.95)
    found = own.result(0.95)
    assert own.is_surely_positive(0.0, 1.0, 0.95)
    assert not own.is_surely_positive(0.0, -1.0, 0.95)
    for batch, above in ((1.05 * found.high, True), (0.95 * found.high, False)):
        assert own.is_surely_positive(-1.0, batch, 0.95) is above
    assert not averaged(pairs[:1], 0.95).is_surely_positive(0.0, 1.0, 0.95)
    assert not averaged(pairs[:1].repeat(9, 1), 0.95).is_surely_positive(0.0, 1.0, 0.95)


def test_parts_are_apart() -> None:
    own = Averages(0.9, 2)
    for k in range(4):
        own.add(np.array([[2.0 + k, 9.0], [1.0, 3.0 + k]]), 4.0)
    assert float(own.result(0.95, 0).grad_sq_norm) == 1.0
    assert float(own.result(0.95, 1).trace_cov) == pytest.approx(9.0)


def test_the_state_goes_through_built_in_values() -> None:
    pairs = torch.rand(9, 2, dtype=torch.float64)
    whole, first = averaged(pairs, 0.9), averaged(pairs[:4], 0.9)
    second = Averages(0.9, 1)
    second.load_state_dict(first.state_dict())
    for pair in pairs[4:].numpy():
        second.add(pair[:, None], 8.0)
    assert second.state_dict() == whole.state_dict()


def test_a_decay_that_is_none_is_refused() -> None:
    for decay in (0.0, 1.5, -1.0):
        with pytest.raises(gn.ArgumentError, match="`decay` must be above 0 and at most 1; got"):
            Averages(decay, 1)


@pytest.mark.parametrize(("steps", "noise"), [(10, 1.0), (40, 1.0), (40, 4.0)])
def test_intervals_cover(steps: int, noise: float) -> None:
    """Four micro-batches in 30 dimensions, 300 runs: within three standard errors of 95 %."""
    source = torch.Generator().manual_seed(steps)
    direction = torch.ones(30, dtype=torch.float64) * 0.2
    covered = [0, 0, 0]
    for _ in range(300):
        gaps = torch.randn(steps, 4, 30, generator=source, dtype=torch.float64)
        parts = (direction + noise * gaps / math.sqrt(8)) / 4  # of eight samples each
        own, total = parts.square().sum((1, 2)), parts.sum(1).square().sum(1)
        signal = (total - own) / (1 - 1 / 4)
        found = averaged(torch.stack([(own - signal / 4) * 32, signal], 1), 0.95).result(0.95)
        truths = (25 * noise**2, 30 * noise**2, 1.2)
        for k, (own_part, truth) in enumerate(
            zip((found, found.trace_cov, found.grad_sq_norm), truths, strict=True)
        ):
            covered[k] += own_part.low <= truth <= own_part.high
    assert all(0.912 <= hits / 300 <= 0.995 for hits in covered), covered
