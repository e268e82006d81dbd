"""Resampling: identities of means, then as a second opinion on the analytic errors."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

import gradnoise as gn
from benchmarks.resampling import block_jackknife, bootstrap, bootstrap_t
from tests.clouds import moments_of_cloud

VALUES = torch.tensor([0.0, 1.0, 1.5, 7.0], dtype=torch.float64)


@pytest.mark.parametrize("blocks", [2, 4])
def test_the_jackknife_of_a_mean_is_the_spread_of_its_blocks(blocks: int) -> None:
    means = VALUES.reshape(blocks, -1).mean(1)
    expected = float(means.std()) / math.sqrt(blocks)
    assert block_jackknife(torch.mean, VALUES, blocks=blocks) == pytest.approx(expected, rel=1e-12)


def test_uneven_blocks_use_every_sample_once() -> None:
    seen: list[Tensor] = []

    def keep(samples: Tensor) -> Tensor:
        seen.append(samples)
        return samples.sum()

    block_jackknife(keep, torch.arange(1.0, 8.0), blocks=3)
    left_out = [set(range(1, 8)) - set(samples.int().tolist()) for samples in seen]
    assert sorted(len(block) for block in left_out) == [2, 2, 3]
    assert set.union(*left_out) == set(range(1, 8))


def test_the_bootstrap_draws_from_all_samples_with_replacement() -> None:
    every = torch.tensor(list(itertools.product(VALUES.tolist(), repeat=4))).mean(1)
    drawn = bootstrap(torch.mean, VALUES, draws=2000)
    assert set(drawn.tolist()) <= set(every.double().tolist())
    assert abs(drawn.mean() - 2.375) < 4 * every.std() / math.sqrt(2000)
    assert float(drawn.std()) == pytest.approx(float(every.std(correction=0)), rel=0.05)
    torch.testing.assert_close(drawn, bootstrap(torch.mean, VALUES, draws=2000))


def test_the_studentised_bootstrap_reaches_further_at_the_tail() -> None:
    values = torch.linspace(0, 3, 40).double().exp()
    up, down = bootstrap_t(values), bootstrap_t(-values)
    assert up.high - up.value > 1.1 * (up.value - up.low)
    assert (up.low, up.high) == pytest.approx((-down.high, -down.low))
    assert up.stderr == pytest.approx(float(values.std()) / math.sqrt(40))


def test_the_population_enters_by_its_factor() -> None:
    part, whole = (bootstrap_t(VALUES.repeat(5), population=size) for size in (40, 20))
    assert part.stderr == pytest.approx(float(VALUES.repeat(5).std()) / math.sqrt(40))
    assert whole.is_exact


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: block_jackknife(torch.mean, VALUES, blocks=1), r"`blocks` .* from 2 on; got 1"),
        (lambda: block_jackknife(torch.mean, VALUES), r"`samples` .* from 20 on; got 4"),
        (lambda: bootstrap(torch.mean, VALUES, draws=1), r"`draws` .* from 2 on; got 1"),
        (lambda: bootstrap_t(VALUES, draws=0), r"`draws` .* from 2 on; got 0"),
        (lambda: bootstrap_t(VALUES, level=2.0), "`level` is a coverage"),
    ],
)
def test_what_cannot_be_resampled_is_refused(call: object, message: str) -> None:
    with pytest.raises(gn.ArgumentError, match=message):
        call()  # type: ignore[operator]


@pytest.mark.parametrize("quantity", ["trace_cov", "grad_sq_norm"])
def test_the_analytic_standard_errors_are_those_of_resampling(quantity: str) -> None:
    """Seen over 40 samples of 256: their means agree to 6 %."""
    toy = gn.toy.LinearRegression(torch.tensor([3.0, 1.0, 0.5]), torch.full((3,), 0.5), 0.5)
    analytic, jackknifed, bootstrapped = 0.0, 0.0, 0.0

    def statistic(gradients: Tensor) -> Tensor:
        spread = gradients.var(0).sum()
        if quantity == "trace_cov":
            return spread
        return gradients.mean(0).square().sum() - spread / len(gradients)

    for seed in range(40):
        inputs, targets = toy.sample(256, seed)
        gradients = (inputs @ toy.offset - targets)[:, None] * inputs
        analytic += getattr(moments_of_cloud(gradients), quantity).stderr
        jackknifed += block_jackknife(statistic, gradients, blocks=64)
        bootstrapped += float(bootstrap(statistic, gradients, draws=100, seed=seed).std())
    assert jackknifed == pytest.approx(analytic, rel=0.06)
    assert bootstrapped == pytest.approx(analytic, rel=0.06)
