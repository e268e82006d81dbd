"""Gradients, inner products and sums at hand give what a pass over the samples gives."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

import gradnoise as gn
from gradnoise.estimators.diagnostics.batch_tests import trace_cov_sq
from gradnoise.estimators.from_arrays import gradients as from_arrays
from tests import oracles
from tests.cases import CORE, Case, named
from tests.numbers import rows, same

POPULATIONS = {"dataset": 6.0, "distribution": math.inf, 11: 11.0}


@pytest.mark.parametrize("population", POPULATIONS)
@pytest.mark.parametrize("case", CORE, ids=named)
def test_they_agree_with_a_pass_over_the_same_samples(case: Case, population: str | int) -> None:
    model, loss_fn, batch = case.build()
    passed = gn.gradient_moments(model, loss_fn, batch, population=population, variance=True)
    gradients = gn.per_sample_gradients(model, loss_fn, batch)
    found = gn.noise_scale_from_gradients(gradients, population=population)
    assert found.variance is not None
    for name, mean in passed.mean.items():
        torch.testing.assert_close(found.mean[name], mean, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(found.variance[name], passed.variance[name])  # type: ignore[index]
    torch.testing.assert_close(found.sq_norms, passed.sq_norms)
    assert found.population == POPULATIONS[population]
    found = replace(found, trace_cov_sq=passed.trace_cov_sq, losses=passed.losses)  # from probes
    for part in ("grad_sq_norm", "trace_cov", "simple_noise_scale"):
        same(getattr(found, part), getattr(passed, part), rel=1e-7)
    assert list(found.layers) == list(passed.layers)


@pytest.mark.parametrize("population", [40, 100, math.inf])
def test_the_parts_are_those_of_averages_over_distinct_samples(population: float) -> None:
    g = rows()
    name = "distribution" if math.isinf(population) else int(population)
    found = gn.noise_scale_from_gradients(g, population=name)
    assert float(found.grad_sq_norm) == pytest.approx(oracles.grad_sq_norm(g, population))
    assert float(found.trace_cov) == pytest.approx(oracles.trace_cov(g))
    assert found.trace_cov_sq == pytest.approx(float(torch.cov(g.T).square().sum()))
    assert math.isnan(float(found.loss))


def test_blocks_of_coordinates_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = gn.noise_scale_from_gradients(rows())
    monkeypatch.setattr(from_arrays, "BLOCK", 100)
    parts = gn.noise_scale_from_gradients(rows())
    same(parts.simple_noise_scale, whole.simple_noise_scale)
    torch.testing.assert_close(parts.mean[""], whole.mean[""])


def test_of_many_samples_the_squared_covariance_is_read_off_signs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    g = rows(300, 40)
    exact = gn.noise_scale_from_gradients(g).trace_cov_sq
    monkeypatch.setattr(from_arrays, "EXACT", 299)
    assert gn.noise_scale_from_gradients(g).trace_cov_sq == pytest.approx(exact, rel=0.2)


def test_the_squared_covariance_is_unbiased_once_corrected() -> None:
    g = rows(4, 3)
    drawn = [g[list(pick)] for pick in itertools.product(range(4), repeat=4)]
    found = [trace_cov_sq(gn.noise_scale_from_gradients(part)) for part in drawn]
    truth = float(torch.cov(g.T, correction=0).square().sum())
    assert math.fsum(found) / len(found) == pytest.approx(truth, rel=1e-12)


def test_a_strong_signal_in_float32_keeps_its_spread() -> None:
    g = (rows(signal=0) * 1e-2 + 100).float()
    truth = float(torch.cov(g.double().T).trace())
    assert float(gn.noise_scale_from_gradients(g).trace_cov) == pytest.approx(truth, rel=1e-9)


def test_a_negative_signal_has_a_bound_and_no_value() -> None:
    g = rows(signal=0)
    g = g - g.mean(0)
    found = gn.noise_scale_from_gradients(g)
    assert float(found.grad_sq_norm) < 0
    scale = found.simple_noise_scale
    assert math.isnan(float(scale))
    assert scale.status is gn.Status.SIGNAL_BELOW_NOISE
    assert 0 < scale.low < math.inf == scale.high


def test_gradients_of_batches_would_be_off_by_their_size() -> None:
    g = rows(4096, 5)
    single = float(gn.noise_scale_from_gradients(g).trace_cov)
    batches = float(gn.noise_scale_from_gradients(g.reshape(-1, 16, 5).mean(1)).trace_cov)
    assert single / batches == pytest.approx(16, rel=0.2)  # said in the docstring


def test_other_options_are_checked() -> None:
    with pytest.raises(gn.ArgumentError, match="`level`"):
        gn.noise_scale_from_gradients(rows(), level=95)
    with pytest.raises(gn.ArgumentError, match="`losses` must be a vector of 40 numbers"):
        gn.noise_scale_from_gradients(rows(), losses=[1.0])


def test_losses_are_kept() -> None:
    found = gn.noise_scale_from_gradients(rows(), losses=np.arange(40))
    assert float(found.loss) == 19.5
    assert found.loss.is_resolved


@pytest.mark.parametrize("count", [2, 3, 4])
def test_few_samples_have_the_same_spread_squared_by_either_way(count: int) -> None:
    model, loss_fn, (x, y) = CORE[0].build()
    batch = (x[:count], y[:count])
    gradients = gn.per_sample_gradients(model, loss_fn, batch)
    passed = gn.gradient_moments(model, loss_fn, batch, population="distribution")
    arrays = gn.noise_scale_from_gradients(gradients)
    assert passed.trace_cov_sq == pytest.approx(arrays.trace_cov_sq, rel=1e-8)
    assert passed.trace_cov_sq > 0


@pytest.mark.parametrize("noise", [1e-4, 1e-8, 1e-12])
def test_tiny_noise_on_a_strong_signal_keeps_its_digits(noise: float) -> None:
    """The spread of signal + noise has the interval of the noise alone."""
    alone = noise * rows()
    there = gn.noise_scale_from_gradients(1 + alone.double())
    exact = gn.noise_scale_from_gradients((1 + alone.double()) - 1)
    same(there.trace_cov, exact.trace_cov, rel=1e-3)


def test_half_precision_is_no_exact_measurement() -> None:
    found = gn.noise_scale_from_gradients(rows().bfloat16(), population="dataset")
    wide = gn.noise_scale_from_gradients(rows(), population="dataset")
    for name in ("trace_cov", "grad_sq_norm", "simple_noise_scale"):
        estimate = getattr(found, name)
        assert not estimate.is_exact
        assert estimate.low <= float(getattr(wide, name)) <= estimate.high
        assert getattr(wide, name).is_exact


def test_samples_that_agree_do_not_prove_that_all_do() -> None:
    found = gn.noise_scale_from_gradients(torch.ones(8, 3))
    assert found.trace_cov.status is gn.Status.NO_INTERVAL
    assert found.simple_noise_scale.status is gn.Status.NO_INTERVAL
    assert gn.noise_scale_from_gradients(torch.ones(8, 3), population="dataset").trace_cov.is_exact


def test_a_squared_norm_that_comes_out_negative_is_no_signal_and_bounds_the_ratio() -> None:
    source = torch.Generator().manual_seed(0)
    rows = torch.randn(100, 20, generator=source, dtype=torch.float64)
    rows = rows - rows.mean(0) + 1e-3
    bounds = []
    for level in (0.8, 0.95, 0.999):
        found = gn.noise_scale_from_gradients(rows, level=level)
        assert float(found.grad_sq_norm) < 0
        assert found.grad_sq_norm.status is gn.Status.SIGNAL_BELOW_NOISE
        assert found.simple_noise_scale.high == math.inf
        bounds.append(found.simple_noise_scale.low)
    assert bounds[0] > bounds[1] > bounds[2] > 0
