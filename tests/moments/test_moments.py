"""Moments and their estimates: merged, unbiased, with intervals."""

from __future__ import annotations

import copy
import itertools
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import gradnoise as gn
from gradnoise.moments.moments import GradientMoments
from gradnoise.toy.digits import trained_digits
from tests import oracles
from tests.cases import CASES, labelled, mlp
from tests.clouds import moments_of_cloud, streamed_moments
from tests.fuzz import examples


def same(first: GradientMoments, second: GradientMoments) -> None:
    for name, mean in first.mean.items():
        torch.testing.assert_close(mean, second.mean[name], rtol=1e-12, atol=1e-13)
        assert first.centred_sq[name] == pytest.approx(second.centred_sq[name], rel=1e-11)
        assert first.variance is not None
        assert second.variance is not None
        torch.testing.assert_close(first.variance[name], second.variance[name])
    torch.testing.assert_close(first.sq_norms, second.sq_norms)
    assert float(first.trace_cov) == pytest.approx(float(second.trace_cov), rel=1e-11)
    assert float(first.loss) == pytest.approx(float(second.loss), rel=1e-12)


@examples(40)
@given(st.lists(st.integers(1, 9), min_size=2, max_size=5), st.integers(0, 10**6))
def test_merging_parts_gives_the_moments_of_the_whole(sizes: list[int], seed: int) -> None:
    source = torch.Generator().manual_seed(seed)
    whole = torch.randn(sum(sizes), 5, generator=source, dtype=torch.float64) + 10
    parts = [streamed_moments(part) for part in whole.split(sizes)]
    left = parts[0]
    for part in parts[1:]:
        left = left.merge(part)
    right = parts[-1]
    for part in reversed(parts[:-1]):
        right = part.merge(right)
    same(left, streamed_moments(whole))
    same(right, streamed_moments(whole))


def test_moments_are_those_of_the_dense_matrix() -> None:
    g = torch.randn(7, 5, dtype=torch.float64)
    moments = streamed_moments(g, population=20)
    assert float(moments.trace_cov) == pytest.approx(float(torch.cov(g.T).trace()), rel=1e-12)
    assert float(moments.trace_cov) == pytest.approx(oracles.trace_cov(g), rel=1e-12)
    assert float(moments.grad_sq_norm) == pytest.approx(oracles.grad_sq_norm(g, 20), rel=1e-11)
    assert moments.variance is not None
    torch.testing.assert_close(moments.variance["a.weight"], g[:, :2].var(0))


@pytest.mark.parametrize("count", [2, 3])
def test_all_batches_of_a_small_population_average_to_its_truth(count: int) -> None:
    g = torch.randn(5, 5, dtype=torch.float64)
    drawn = [streamed_moments(g[list(pick)], 5) for pick in itertools.combinations(range(5), count)]
    signal = math.fsum(float(m.grad_sq_norm) for m in drawn) / len(drawn)
    trace = math.fsum(float(m.trace_cov) for m in drawn) / len(drawn)
    assert signal == pytest.approx(float(g.mean(0) @ g.mean(0)), rel=1e-12, abs=1e-13)
    assert trace == pytest.approx(float(torch.cov(g.T).trace()), rel=1e-12)


def test_all_draws_with_replacement_average_to_the_distributions_truth() -> None:
    g = torch.randn(4, 5, dtype=torch.float64)
    drawn = [streamed_moments(g[list(pick)]) for pick in itertools.product(range(4), repeat=3)]
    signal = math.fsum(float(m.grad_sq_norm) for m in drawn) / len(drawn)
    assert signal == pytest.approx(float(g.mean(0) @ g.mean(0)), rel=1e-12, abs=1e-13)


def test_layers_are_ratios_of_sums() -> None:
    model, loss_fn, batch = CASES[0].build()
    moments = gn.gradient_moments(model, loss_fn, batch)
    layers = moments.layers
    assert list(layers) == ["0", "2"]
    assert sum(layer.size for layer in layers.values()) == 43
    assert sum(layer.noise_share for layer in layers.values()) == pytest.approx(1)
    total = sum(float(layer.trace_cov) for layer in layers.values())
    signal = sum(float(layer.grad_sq_norm) for layer in layers.values())
    assert total == pytest.approx(float(moments.trace_cov))
    assert total / signal == pytest.approx(float(moments.simple_noise_scale))
    for layer in layers.values():
        own = float(layer.trace_cov) / float(layer.grad_sq_norm)
        assert float(layer.simple_noise_scale) == pytest.approx(own)


@pytest.mark.parametrize("population", ["distribution", 40])
def test_skewness_is_that_of_the_dense_influences(population: str | int) -> None:
    model, loss_fn, batch = CASES[0].build()
    moments = gn.gradient_moments(model, loss_fn, batch, population=population)
    g = oracles.dense(model, loss_fn, batch, second=False).gradients
    size = math.inf if population == "distribution" else float(population)
    cloud = moments_of_cloud(g, size)
    torch.testing.assert_close(
        moments.influence_products, cloud.influence_products, rtol=1e-9, atol=1e-15
    )
    for part in ("grad_sq_norm", "trace_cov"):
        one = getattr(replace(moments, trace_cov_sq=math.nan), part)
        other = getattr(replace(cloud, trace_cov_sq=math.nan), part)
        assert (one.low, one.high) == pytest.approx((other.low, other.high), rel=1e-8)


def test_more_parameters_than_samples_do_not_skew_the_interval_of_a_missing_signal() -> None:
    """Cov(e, g) is then mostly noise, which is subtracted."""
    source = torch.Generator().manual_seed(0)
    distances, raw = [], []
    for _ in range(20):
        cloud = moments_of_cloud(torch.randn(32, 1000, generator=source, dtype=torch.float64))
        found = replace(cloud, trace_cov_sq=1000.0).grad_sq_norm
        distances.append((found.high - found.value) / found.stderr)
        signal, noise = (
            float(cloud.influence_products[1, 1]),
            float(cloud._unbiased(cloud.influence_products)[1, 1]),
        )
        raw.append(noise / signal)
    assert sum(distances) / 20 < 2.5  # Student's is 2.04; with the noise it would be 4.7
    assert abs(sum(raw) / 20) < 0.15


def test_equal_norms_do_not_make_the_trace_exact() -> None:
    moments = moments_of_cloud(torch.tensor([[1.0], [-1.0]] * 8, dtype=torch.float64))
    weakest = 2 * moments.trace_cov_sq / 16**2
    assert moments.trace_cov.stderr == pytest.approx(math.sqrt(weakest))


def test_without_intervals_the_estimates_say_so() -> None:
    model, loss_fn, batch = CASES[0].build()
    options = {"population": "distribution", "intervals": False}
    moments = gn.gradient_moments(model, loss_fn, batch, **options)
    for estimate in (moments.trace_cov, moments.simple_noise_scale, moments.grad_sq_norm):
        assert not estimate.is_resolved
        assert math.isnan(estimate.stderr)
    with pytest.raises(gn.ArgumentError, match="`intervals=True`"):
        moments.deviations()


def test_moments_of_different_things_do_not_merge() -> None:
    g = torch.randn(4, 5, dtype=torch.float64)
    with pytest.raises(gn.ArgumentError, match="populations of inf and 9"):
        streamed_moments(g).merge(streamed_moments(g, population=9))
    other = gn.gradient_moments(mlp().double(), nn.CrossEntropyLoss(), labelled())
    with pytest.raises(gn.ArgumentError, match="2 and 4 parameters"):
        streamed_moments(g, 6).merge(other)


def test_moments_without_slopes_have_no_distances() -> None:
    g = torch.randn(6, 4, dtype=torch.float64)
    with pytest.raises(gn.ArgumentError, match="hold no slopes"):
        _ = streamed_moments(g).distances


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("epochs", [5, 40])
def test_half_precision_tells_the_gradient_from_its_rounding(
    dtype: torch.dtype, epochs: int
) -> None:
    """|G|²/trΣ is 0.005 and 0.003 here; rounding alone gives less than a hundredth of that."""
    model, criterion, data, _ = trained_digits(epochs=epochs)
    inputs, labels = data.tensors
    half = model.to(dtype)
    found = gn.gradient_moments(half, criterion, (inputs.to(dtype), labels))
    exact = gn.gradient_moments(
        copy.deepcopy(half).double(), criterion, (inputs.to(dtype).double(), labels)
    )
    assert found.simple_noise_scale.is_resolved
    assert float(found.simple_noise_scale) == pytest.approx(
        float(exact.simple_noise_scale), rel=0.03
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_gradient_of_the_size_of_its_rounding_is_no_signal(dtype: torch.dtype) -> None:
    """At the minimum of least squares: the norm and the noise scale say the same."""
    inputs = torch.randn(64, 5, dtype=torch.float64)
    targets = inputs.sum(1, keepdim=True) + torch.randn(64, 1, dtype=torch.float64)
    model = nn.Linear(5, 1, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(torch.linalg.lstsq(inputs, targets).solution.T)
    data = (inputs.to(dtype), targets.to(dtype))
    if dtype is torch.bfloat16:  # rounded weights are no minimum: the targets are moved to it
        residual = targets - inputs @ model.weight.T
        data = (
            inputs.to(dtype),
            (inputs.to(dtype) @ model.weight.to(dtype).T + residual.to(dtype)),
        )
    found = gn.gradient_moments(model.to(dtype), nn.MSELoss(), data)
    assert found.rounding > 0
    assert not found.grad_sq_norm.is_resolved
    assert not found.simple_noise_scale.is_resolved


def test_printed_they_are_three_lines() -> None:
    model, data = nn.Linear(3, 2), (torch.randn(20, 3), torch.randn(20, 2))
    found = gn.gradient_moments(model, nn.MSELoss(), data, population="distribution")
    first, second, third = str(found).splitlines()
    assert first == "20 samples out of a distribution"
    assert second == f"B_simple {found.simple_noise_scale} (samples)"
    assert third == f"|G|² {found.grad_sq_norm}, trΣ {found.trace_cov}"
    assert repr(found) == "GradientMoments(20 of inf, 2 parameters)"
