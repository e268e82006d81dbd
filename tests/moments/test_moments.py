"""Streaming moments: merged, centred, unbiased."""

from __future__ import annotations

import itertools
import math
import weakref
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import gradnoise as gn
from gradnoise.moments.accumulator import Accumulator
from gradnoise.moments.measure import stream
from gradnoise.moments.moments import GradientMoments
from gradnoise.per_sample.contract.summary import Chunk, Summary, Wanted
from gradnoise.per_sample.loop import Loop
from gradnoise.problem.options import Options
from gradnoise.problem.problem import Problem
from tests import oracles
from tests.cases import CASES, Case, labelled, mlp, named
from tests.clouds import moments_of_cloud
from tests.fuzz import examples


def moments_of(gradients: Tensor, population: float = math.inf) -> GradientMoments:
    """Moments of rows g_i split over two parameters."""
    named = {"a.weight": gradients[:, :2], "b.weight": gradients[:, 2:]}
    summary = Summary.of(Chunk(gradients.sum(1), named), Wanted(variance=True))
    running = Accumulator()
    running.add(summary)
    return running.moments(population=population, resolution=2**-52, level=0.95)


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
    parts = [moments_of(part) for part in whole.split(sizes)]
    left = parts[0]
    for part in parts[1:]:
        left = left.merge(part)
    right = parts[-1]
    for part in reversed(parts[:-1]):
        right = part.merge(right)
    same(left, moments_of(whole))
    same(right, moments_of(whole))


def test_moments_are_those_of_the_dense_matrix() -> None:
    g = torch.randn(7, 5, dtype=torch.float64)
    moments = moments_of(g, population=20)
    assert float(moments.trace_cov) == pytest.approx(float(torch.cov(g.T).trace()), rel=1e-12)
    assert float(moments.trace_cov) == pytest.approx(oracles.trace_cov(g), rel=1e-12)
    assert float(moments.grad_sq_norm) == pytest.approx(oracles.grad_sq_norm(g, 20), rel=1e-11)
    assert moments.variance is not None
    torch.testing.assert_close(moments.variance["a.weight"], g[:, :2].var(0))


@pytest.mark.parametrize("count", [2, 3])
def test_all_batches_of_a_small_population_average_to_its_truth(count: int) -> None:
    g = torch.randn(5, 5, dtype=torch.float64)
    drawn = [moments_of(g[list(pick)], 5) for pick in itertools.combinations(range(5), count)]
    signal = math.fsum(float(m.grad_sq_norm) for m in drawn) / len(drawn)
    trace = math.fsum(float(m.trace_cov) for m in drawn) / len(drawn)
    assert signal == pytest.approx(float(g.mean(0) @ g.mean(0)), rel=1e-12, abs=1e-13)
    assert trace == pytest.approx(float(torch.cov(g.T).trace()), rel=1e-12)


def test_all_draws_with_replacement_average_to_the_distributions_truth() -> None:
    g = torch.randn(4, 5, dtype=torch.float64)
    drawn = [moments_of(g[list(pick)]) for pick in itertools.product(range(4), repeat=3)]
    signal = math.fsum(float(m.grad_sq_norm) for m in drawn) / len(drawn)
    assert signal == pytest.approx(float(g.mean(0) @ g.mean(0)), rel=1e-12, abs=1e-13)


def test_a_strong_signal_does_not_drown_the_variance_in_float32() -> None:
    noise = torch.randn(512, 5, generator=torch.Generator().manual_seed(0)) * 1e-2
    g = noise + 100
    truth = float(torch.cov(g.double().T).trace())
    naive = float((g.square().mean(0) - g.mean(0).square()).sum())
    halves = moments_of(g[:200]).merge(moments_of(g[200:]))
    assert abs(naive / truth - 1) > 0.05
    assert float(halves.trace_cov) == pytest.approx(truth, rel=1e-9)
    assert (torch.cat([v.flatten() for v in halves.variance.values()]) >= 0).all()


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


@pytest.mark.parametrize("case", CASES, ids=named)
def test_the_mean_is_the_gradient_of_the_mean_loss(case: Case) -> None:
    model, loss_fn, batch = case.build()
    truth = oracles.dense(model, loss_fn, batch, second=False)
    moments = gn.gradient_moments(model, loss_fn, batch)
    mean = torch.cat([part.flatten() for part in moments.mean.values()])
    torch.testing.assert_close(mean, truth.gradients.mean(0), rtol=1e-10, atol=1e-13)
    assert float(moments.loss) == pytest.approx(float(truth.losses.mean()))
    assert moments.mean.keys() == {n for n, p in model.named_parameters() if p.requires_grad}


def test_uneven_batches_weigh_by_their_samples() -> None:
    model, loss_fn, (x, y) = CASES[0].build()
    whole = gn.gradient_moments(model, loss_fn, (x, y))
    parts = gn.gradient_moments(model, loss_fn, [(x[:5], y[:5]), (x[5:], y[5:])])
    assert float(parts.grad_sq_norm) == pytest.approx(float(whole.grad_sq_norm), rel=1e-12)
    assert float(parts.trace_cov) == pytest.approx(float(whole.trace_cov), rel=1e-12)


def test_intervals_are_the_influence_of_each_sample() -> None:
    model, loss_fn, batch = CASES[0].build()
    moments = gn.gradient_moments(model, loss_fn, batch, population="distribution")
    g = oracles.dense(model, loss_fn, batch, second=False).gradients
    mean = g.mean(0)
    torch.testing.assert_close(moments.slopes, g @ mean, rtol=1e-9, atol=1e-12)
    spread = (g - mean).square().sum(1)
    expected = float(spread.var()) / len(g)
    assert moments.trace_cov.stderr**2 == pytest.approx(expected, rel=1e-8)
    signal = 2 * g @ mean - spread / len(g)
    plain, weakest = float(signal.var()) / len(g), 2 * moments.trace_cov_sq / len(g) ** 2
    expected = max(plain, weakest)
    assert moments.grad_sq_norm.stderr**2 == pytest.approx(expected, rel=1e-8)


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


def test_with_more_parameters_than_samples_a_missing_signal_does_not_lean() -> None:
    """The pull of the mean gradient is then noise, and is taken off."""
    source = torch.Generator().manual_seed(0)
    reaches, raw = [], []
    for _ in range(20):
        cloud = moments_of_cloud(torch.randn(32, 1000, generator=source, dtype=torch.float64))
        found = replace(cloud, trace_cov_sq=1000.0).grad_sq_norm
        reaches.append((found.high - found.value) / found.stderr)
        signal, noise = (
            float(cloud.influence_products[1, 1]),
            float(cloud._unbiased(cloud.influence_products)[1, 1]),
        )
        raw.append(noise / signal)
    assert sum(reaches) / 20 < 2.5  # Student's is 2.04; with the noise it would be 4.7
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


def test_no_more_than_two_chunks_are_alive_at_once() -> None:
    model, loss_fn, _ = CASES[0].build()
    problem = Problem.open(model, loss_fn, labelled(), Options(micro_batch=2))
    alive, most = 0, 0

    class Counting(Loop):
        def chunks(self, batch: Any) -> Iterator[Chunk]:
            nonlocal alive, most
            for chunk in super().chunks(batch):
                alive += 1
                most = max(most, alive)
                weakref.finalize(chunk.gradients["0.weight"], dead)
                yield chunk

    def dead() -> None:
        nonlocal alive
        alive -= 1

    assert stream(problem, Counting(problem.objective)).count == 6
    assert 1 <= most <= 2
    assert alive == 0


def test_moments_of_different_things_do_not_merge() -> None:
    g = torch.randn(4, 5, dtype=torch.float64)
    with pytest.raises(gn.ArgumentError, match="populations of inf and 9"):
        moments_of(g).merge(moments_of(g, population=9))
    other = gn.gradient_moments(mlp().double(), nn.CrossEntropyLoss(), labelled())
    with pytest.raises(gn.ArgumentError, match="2 and 4 parameters"):
        moments_of(g, 6).merge(other)


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


def test_a_layer_with_a_strong_signal_is_centred_though_others_are_noisy() -> None:
    torch.manual_seed(0)
    model = nn.ModuleDict({"strong": nn.Linear(4, 3, bias=False), "noisy": nn.Linear(4, 3)})
    steady, wild = 1 + 1e-4 * torch.randn(64, 4), 10 * torch.randn(64, 4)

    def loss(model: nn.Module, batch: Any) -> Tensor:
        return model["strong"](batch[0]).sum(1) + model["noisy"](batch[1]).sum(1)

    moments = gn.gradient_moments(model, loss, (steady, wild), variance=True)
    spread = steady.double().var(0)
    assert float(moments.layers["strong"].trace_cov) == pytest.approx(
        3 * float(spread.sum()), rel=1e-5
    )
    torch.testing.assert_close(moments.variance["strong.weight"][0], spread, rtol=1e-4, atol=0)  # type: ignore[index]


def test_sums_in_float32_are_added_wide_before_they_lose_digits() -> None:
    running, ones = Accumulator(), torch.ones(2, dtype=torch.float64)
    for _ in range(4000):
        total = {"w": torch.full((1,), 0.2)}
        running.add(Summary(losses=ones, total=total, sq_norms={"w": 0.01 * ones}))
    mean = running.moments(population=math.inf, resolution=2**-23, level=0.95).mean["w"]
    assert float(mean) == pytest.approx(float(torch.tensor(0.2)) / 2, rel=3e-7)


def two_layers(dtype: torch.dtype) -> nn.Module:
    torch.manual_seed(0)
    layers = {"strong": nn.Linear(4, 3, bias=False), "noisy": nn.Linear(4, 3, bias=False)}
    return nn.ModuleDict(layers).to(dtype)


def summed_outputs(model: nn.ModuleDict, batch: Any) -> Tensor:
    return model["strong"](batch[0]).sum(1) + model["noisy"](batch[1]).sum(1)


def ends(estimate: gn.Estimate) -> list[float]:
    return [float(estimate), estimate.low, estimate.high]


@pytest.mark.parametrize("engine", ["auto", "hooks", "functional", "backpack", "loop"])
@pytest.mark.parametrize("scale", [1e3, 1e4, 1e5])
def test_intervals_under_a_strong_signal_in_float32_are_those_of_float64(
    scale: float, engine: str
) -> None:
    source = torch.Generator().manual_seed(0)
    noise = torch.randn(2, 128, 4, generator=source)
    data = (scale + noise[0], 5 * noise[1])
    found, exact = (
        gn.gradient_moments(model, summed_outputs, own, engine=kind, population="distribution")
        for model, own, kind in (
            (two_layers(torch.float32), data, engine),
            (two_layers(torch.float64), tuple(part.double() for part in data), "loop"),
        )
    )
    rounding = 8 * torch.finfo(torch.float32).eps * scale  # of a gradient, in units of its noise
    torch.testing.assert_close(found.distances, exact.distances, rtol=rounding, atol=1e-2)
    assert ends(found.trace_cov) == pytest.approx(ends(exact.trace_cov), rel=2e-3)
    assert ends(found.simple_noise_scale) == pytest.approx(ends(exact.simple_noise_scale), rel=2e-3)
    for name, layer in found.layers.items():
        assert ends(layer.trace_cov) == pytest.approx(ends(exact.layers[name].trace_cov), rel=2e-3)
        part = found.restrict([f"{name}.weight"])
        assert ends(part.trace_cov) == ends(layer.trace_cov)


def test_diagnostics_under_a_strong_signal_in_float32_are_those_of_float64() -> None:
    inputs = 1e4 + torch.randn(256, 4, generator=torch.Generator().manual_seed(0))
    found, exact = (
        gn.diagnostics(
            nn.Linear(4, 3, bias=False, dtype=dtype),
            lambda model, x: model(x).sum(1),
            inputs.to(dtype),
            population="distribution",
        )
        for dtype in (torch.float32, torch.float64)
    )
    for name in ("hill", "inner_product_test", "orthogonality_test"):
        assert ends(getattr(found, name)) == pytest.approx(ends(getattr(exact, name)), rel=2e-2)
    assert found.hill_gaussian == pytest.approx(exact.hill_gaussian, rel=1e-2)


def test_moments_without_slopes_have_no_distances() -> None:
    g = torch.randn(6, 4, dtype=torch.float64)
    with pytest.raises(gn.ArgumentError, match="hold no slopes"):
        _ = moments_of(g).distances


def test_distances_under_an_optimizers_metric_are_scaled() -> None:
    inputs = 1e4 + torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    model = nn.Linear(4, 1, bias=False)
    optimizer = torch.optim.Adam(model.parameters())
    model(inputs).sum().backward()
    optimizer.step()
    found = gn.gradient_moments(
        model,
        lambda model, x: model(x).sum(1),
        inputs,
        optimizer=optimizer,
        metric="optimizer",
        engine="hooks",
    )
    spread = (float(found.distances.sum()) / (found.count - 1), float(found.trace_cov))
    assert spread[0] == pytest.approx(spread[1], rel=1e-4)
