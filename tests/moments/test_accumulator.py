"""Sums over summaries: centred where the engine centres, without loss of digits."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from gradnoise.moments.accumulator import Accumulator
from gradnoise.per_sample.contract.engine import Chunk, Summary, Wanted
from tests.clouds import streamed_moments


def test_a_strong_signal_does_not_drown_the_variance_in_float32() -> None:
    noise = torch.randn(512, 5, generator=torch.Generator().manual_seed(0)) * 1e-2
    g = noise + 100
    truth = float(torch.cov(g.double().T).trace())
    naive = float((g.square().mean(0) - g.mean(0).square()).sum())
    halves = streamed_moments(g[:200]).merge(streamed_moments(g[200:]))
    assert abs(naive / truth - 1) > 0.05
    assert float(halves.trace_cov) == pytest.approx(truth, rel=1e-9)
    assert (torch.cat([v.flatten() for v in halves.variance.values()]) >= 0).all()


@pytest.mark.parametrize("order", ["rc", "cr", "crc", "rcr", "rrcc"])
def test_engines_that_centre_and_engines_that_do_not_are_joined(order: str) -> None:
    g = torch.randn(24, 5, dtype=torch.float64) + 1
    running, parts = Accumulator(), g.split(24 // len(order))
    for kind, part in zip(order, parts, strict=True):
        summary = Summary.of(Chunk(part.sum(1), {"w": part.clone()}), Wanted(variance=True))
        if kind == "r":
            squares = {"w": part.square().sum(0)}
            summary = replace(summary, centred_sq=None, squares=squares)
        running.add(summary)
    moments = running.moments(population=math.inf, resolution=1e-16, level=0.95)
    assert float(moments.trace_cov) == pytest.approx(float(g.var(0).sum()), rel=1e-12)
    torch.testing.assert_close(moments.variance["w"], g.var(0))  # type: ignore[index]


def test_sums_in_float32_are_added_in_float64_before_they_lose_digits() -> None:
    running, ones = Accumulator(), torch.ones(2, dtype=torch.float64)
    for _ in range(4000):
        total = {"w": torch.full((1,), 0.2)}
        running.add(Summary(losses=ones, total=total, sq_norms={"w": 0.01 * ones}))
    mean = running.moments(population=math.inf, resolution=2**-23, level=0.95).mean["w"]
    assert float(mean) == pytest.approx(float(torch.tensor(0.2)) / 2, rel=3e-7)


@pytest.mark.parametrize("sizes", [[12], [1, 11], [5, 4, 3], [1] * 12])
def test_in_however_many_summaries_the_moments_are_the_same(sizes: list[int]) -> None:
    g = torch.randn(12, 5, dtype=torch.float64) + 1
    running = Accumulator()
    for part in g.split(sizes):
        running.add(Summary.of(Chunk(part.sum(1), {"w": part.clone()}), Wanted(variance=True)))
    moments = running.moments(population=40.0, resolution=2**-52, level=0.9)
    torch.testing.assert_close(moments.mean["w"], g.mean(0))
    torch.testing.assert_close(moments.variance["w"], g.var(0))  # type: ignore[index]
    torch.testing.assert_close(moments.sq_norms, g.square().sum(1))
    torch.testing.assert_close(moments.losses, g.sum(1))
    assert (moments.count, moments.population, moments.level) == (12, 40.0, 0.9)
    assert moments.per_parameter is not None
    torch.testing.assert_close(moments.per_parameter.norms_of(["w"]), moments.sq_norms)


def test_the_digits_that_subtraction_loses_are_counted() -> None:
    """Σ‖g_i‖² over Σ‖g_i - ḡ‖²: here (10² + 1)/1 for gradients 10 ± 1."""
    g = torch.tensor([[9.0], [11.0]], dtype=torch.float64)
    running = Accumulator()
    norms = {"w": g[:, 0].square()}
    running.add(Summary(losses=g[:, 0], total={"w": g.sum(0)}, sq_norms=norms))
    running.moments(population=2.0, resolution=2**-52, level=0.95)
    assert running.cancellation == pytest.approx(101)


@pytest.mark.parametrize("count", [1, 2, 3, 8, 9, 20])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("centres", [False, True])
def test_summaries_are_left_as_they_are(count: int, dtype: torch.dtype, centres: bool) -> None:
    g = torch.randn(4 * count, 3, dtype=dtype) + 1
    running, kept = Accumulator(), []
    for part in g.split(4):
        summary = Summary.of(Chunk(part.sum(1), {"w": part.clone()}), Wanted(variance=True))
        total = {"w": part.sum(0)}
        summary = replace(summary, total=total)
        if not centres:
            squares = {"w": part.double().square().sum(0)}
            summary = replace(summary, centred_sq=None, squares=squares)
        running.add(summary)
        kept.append((part, summary))
    mean = running.moments(population=math.inf, resolution=2**-23, level=0.95).mean["w"]
    torch.testing.assert_close(mean, g.double().mean(0), rtol=1e-6, atol=0)
    for part, summary in kept:
        assert torch.equal(summary.total["w"], part.sum(0))
        if not centres:
            assert summary.squares is not None
            assert torch.equal(summary.squares["w"], part.double().square().sum(0))
