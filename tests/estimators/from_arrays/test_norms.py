"""Squared norms of batch gradients: arithmetic, enumeration, then Gaussian batches."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

import gradnoise as gn
from gradnoise.statistics.quantile import quantile

SCALES = 1 / np.sqrt(1 + np.arange(10))  # standard deviations of the coordinates
TRACE = float((SCALES**2).sum())


def sq_norms(batches: np.ndarray, signal: float, source: np.random.Generator) -> np.ndarray:
    """|g_B|² of independent Gaussian batches; |G|² = signal, trΣ = TRACE."""
    noise = source.standard_normal((len(batches), len(SCALES))) * SCALES
    mean = np.zeros(len(SCALES))
    mean[1] = math.sqrt(signal)
    return ((mean + noise / np.sqrt(batches)[:, None]) ** 2).sum(1)


@pytest.mark.parametrize(
    ("small", "big", "batches", "signal", "trace"),
    [
        (10.0, 4.0, (1, 4), 2.0, 8.0),
        (6.0, 4.0, (2, 4), 2.0, 8.0),
        (5.0, 5.0, (1, 8), 5.0, 0.0),
        (3.0, 1.5, (1, 2), 0.0, 3.0),
        (10.0, 2.0, (1, 4), -2 / 3, 32 / 3),
        (1.0, 2.0, (1, 2), 3.0, -2.0),
        (1.25, 1.0, (8, 64), 27 / 28, 16 / 7),
    ],
)
def test_two_norms_give_the_parts_by_arithmetic(small, big, batches, signal, trace) -> None:
    found = gn.simple_noise_scale_from_norms(small, big, *batches)
    assert float(found.grad_sq_norm) == pytest.approx(signal, abs=1e-14)
    assert float(found.trace_cov) == pytest.approx(trace, abs=1e-14)
    if signal > 0 and trace >= 0:
        assert float(found) == pytest.approx(trace / signal)
        assert found.status is gn.Status.NO_INTERVAL
    else:
        assert math.isnan(float(found))
        assert (found.low, found.high) == (0.0, math.inf)
        below = gn.Status.NOISE_BELOW_ERROR if signal > 0 else gn.Status.SIGNAL_BELOW_NOISE
        assert found.status is below


def test_all_batches_with_replacement_average_to_the_truth() -> None:
    g = torch.randn(3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def every(size: int) -> torch.Tensor:
        batches = itertools.product(range(3), repeat=size)
        return torch.stack([g[list(pick)].mean(0).square().sum() for pick in batches])

    found = gn.simple_noise_scale_from_norms(every(2), every(5), 2, 5)
    cov, mean = torch.cov(g.T, correction=0), g.mean(0)
    assert float(found.grad_sq_norm) == pytest.approx(float(mean @ mean), rel=1e-12)
    assert float(found.trace_cov) == pytest.approx(float(cov.trace()), rel=1e-12)


def test_parts_are_averaged_apart_and_divided_last() -> None:
    small, big = np.array([10.0, 4.0]), np.array([4.0, 3.0])
    found = gn.simple_noise_scale_from_norms(small, big, 1, 4)
    whole = gn.simple_noise_scale_from_norms(small.mean(), big.mean(), 1, 4)
    assert float(found.grad_sq_norm) == pytest.approx(float(whole.grad_sq_norm))
    ratios = [
        float(gn.simple_noise_scale_from_norms(s, b, 1, 4)) for s, b in zip(small, big, strict=True)
    ]
    assert np.mean(ratios) != pytest.approx(float(whole), rel=0.05)


def test_pairs_give_fiellers_interval_and_their_covariance_counts() -> None:
    source = np.random.default_rng(0)
    small = sq_norms(np.full(30, 4), 1.0, source)
    big = 0.5 * small + sq_norms(np.full(30, 64), 0.5, source)
    found = gn.simple_noise_scale_from_norms(small, big, 4, 64)
    trace, signal = (small - big) / (1 / 4 - 1 / 64), (64 * big - 4 * small) / 60
    covariance = np.cov(trace, signal) / 30
    t = quantile(0.95, 29)
    for end in (found.low, found.high):  # the ends solve Fieller's equation
        if not math.isfinite(end) or end == 0:
            continue
        gap = trace.mean() - end * signal.mean()
        spread = covariance[0, 0] - 2 * end * covariance[0, 1] + end**2 * covariance[1, 1]
        assert gap**2 == pytest.approx(t**2 * spread, rel=1e-9)
    assert found.trace_cov.stderr == pytest.approx(math.sqrt(covariance[0, 0]))
    assert found.grad_sq_norm.stderr == pytest.approx(math.sqrt(covariance[1, 1]))
    assert found.is_resolved


def test_arrays_of_two_lengths_are_independent() -> None:
    source = np.random.default_rng(1)
    small, big = sq_norms(np.full(40, 1), 3.0, source), sq_norms(np.full(10, 16), 3.0, source)
    found = gn.simple_noise_scale_from_norms(small, torch.from_numpy(big), 1, 16)
    variance = small.var(ddof=1) / 40 + big.var(ddof=1) / 10
    assert found.trace_cov.stderr == pytest.approx(math.sqrt(variance) * 16 / 15)


@pytest.mark.parametrize("signal", [3.0, 0.0])
def test_intervals_of_two_batch_sizes_hold(signal: float) -> None:
    source, held, unbounded = np.random.default_rng(2), 0, 0
    for _ in range(400):
        small = sq_norms(np.full(50, 2), signal, source)
        big = sq_norms(np.full(50, 32), signal, source)
        found = gn.simple_noise_scale_from_norms(small, big, 2, 32)
        truth = TRACE / signal if signal else math.inf
        held += found.low <= truth <= found.high
        unbounded += math.isinf(found.high)
    assert held >= 400 * 0.95 - 3 * math.sqrt(400 * 0.95 * 0.05)
    assert signal or unbounded == held


def test_a_line_through_exact_norms_is_found() -> None:
    sizes = np.array([1, 2, 4, 8, 64])
    found = gn.noise_scale_from_batches(sizes, 2 + 8 / sizes)
    assert float(found) == pytest.approx(4.0)
    assert float(found.grad_sq_norm) == pytest.approx(2.0)
    assert float(found.trace_cov) == pytest.approx(8.0)


def test_two_measurements_are_the_two_batch_estimator() -> None:
    line = gn.noise_scale_from_batches([1, 4], [10.0, 4.0])
    two = gn.simple_noise_scale_from_norms(10.0, 4.0, 1, 4)
    assert float(line) == pytest.approx(float(two))
    assert line.status is gn.Status.NO_INTERVAL
    assert math.isnan(float(gn.noise_scale_from_batches([1, 4], [10.0, 2.0])))


@pytest.mark.parametrize("signal", [3.0, 0.1])
def test_the_fitted_line_is_unbiased_and_its_intervals_hold(signal: float) -> None:
    source, runs = np.random.default_rng(3), 400
    sizes = np.repeat([1, 2, 4, 8, 16, 32], 16)
    held, parts = np.zeros(3), []
    for _ in range(runs):
        found = gn.noise_scale_from_batches(sizes, sq_norms(sizes, signal, source))
        triple = (found, found.grad_sq_norm, found.trace_cov)
        truths = (TRACE / signal, signal, TRACE)
        held += [e.low <= truth <= e.high for e, truth in zip(triple, truths, strict=True)]
        parts.append((float(triple[1]), float(triple[2])))
    parts = np.array(parts)
    z = (parts.mean(0) - [signal, TRACE]) / (parts.std(0, ddof=1) / math.sqrt(runs))
    assert (abs(z) < 4).all()
    assert (held / runs > 0.90).all()  # the docstring promises about 95 % from ten on
    assert held[0] / runs > 0.92


def test_weights_matter() -> None:
    source, plain, weighted = np.random.default_rng(4), [], []
    sizes = np.repeat([1, 64], 20)
    sizes = np.concatenate([sizes, [4, 16]])
    line = np.stack([np.ones(len(sizes)), 1 / sizes], 1)
    for _ in range(200):
        norms = sq_norms(sizes, 0.5, source)
        plain.append(np.linalg.lstsq(line, norms, rcond=None)[0][0])
        weighted.append(float(gn.noise_scale_from_batches(sizes, norms).grad_sq_norm))
    assert np.std(weighted) < 0.8 * np.std(plain)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1.0, 1.0, 4, 4), "0 < `small_batch` < `big_batch`"),
        ((1.0, 1.0, 8, 4), "0 < `small_batch` < `big_batch`"),
        ((1.0, 1.0, 0, 4), "0 < `small_batch` < `big_batch`"),
        ((-1.0, 1.0, 1, 4), "`small_sq_norm` must be squared norms"),
        ((1.0, math.nan, 1, 4), "`big_sq_norm` must be finite"),
        (([], 1.0, 1, 4), "`small_sq_norm` must be a vector"),
        ((np.ones((2, 2)), 1.0, 1, 4), "`small_sq_norm` must be a vector"),
    ],
)
def test_what_are_no_two_batch_sizes_is_refused(arguments: tuple, message: str) -> None:
    with pytest.raises(gn.ArgumentError, match=message):
        gn.simple_noise_scale_from_norms(*arguments)


@pytest.mark.parametrize(
    ("sizes", "norms", "message"),
    [
        ([4, 4, 4], [1.0, 2.0, 3.0], "two different ones"),
        ([0, 4], [1.0, 2.0], "must be positive"),
        ([1, 2, 4], [1.0, 2.0], "`batch_sizes` must be a vector of 2 numbers"),
        ([1, 2], [1.0, -2.0], "`sq_norms` must be squared norms"),
    ],
)
def test_what_is_no_line_is_refused(sizes: list, norms: list, message: str) -> None:
    with pytest.raises(gn.ArgumentError, match=message):
        gn.noise_scale_from_batches(sizes, norms)


@pytest.mark.parametrize("norms", [[9.0, 5.0, 3.0], [9.0, 5.0, 3.0, 3.0, 2.0]])
def test_norms_that_lie_on_a_line_by_chance_are_not_exact(norms: list[float]) -> None:
    sizes = [1, 2, 4, 4, 8][: len(norms)]
    found = gn.noise_scale_from_batches(sizes, norms)
    assert float(found) == pytest.approx(8.0)
    assert found.status is gn.Status.NO_INTERVAL
