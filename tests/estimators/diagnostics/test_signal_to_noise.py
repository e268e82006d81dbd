"""GSNR: the literal quotient, unbiased for Gaussians, and what has no noise or no signal."""

from __future__ import annotations

import math

import pytest
import torch

import gradnoise as gn


def gaussian(count: int, size: int, mean: float) -> torch.Tensor:
    source = torch.Generator().manual_seed(0)
    return mean + torch.randn(count, size, generator=source, dtype=torch.float64)


def test_of_a_whole_population_it_is_the_literal_quotient() -> None:
    g = gaussian(20, 5, 1.0)
    found = gn.signal_to_noise(gn.noise_scale_from_gradients(g, population="dataset"))
    torch.testing.assert_close(found.values[""], g.mean(0).square() / g.var(0))
    assert found.mean.is_exact
    assert float(found.mean) == pytest.approx(float(found.values[""].mean()))


@pytest.mark.parametrize("mean", [0.0, 0.5, 2.0])
def test_it_is_unbiased_for_gaussian_gradients(mean: float) -> None:
    size = 40_000  # as many independent replicates
    g = gaussian(10, size, mean)
    values = gn.signal_to_noise(gn.noise_scale_from_gradients(g)).values[""]
    z = float(values.mean() - mean**2) / (float(values.std()) / math.sqrt(size))
    assert abs(z) < 3.5
    plain = g.mean(0).square() / g.var(0)
    assert float(plain.mean() - mean**2) / (float(plain.std()) / math.sqrt(size)) > 10


def test_without_signal_one_coordinate_in_twenty_is_resolved_by_chance() -> None:
    found = gn.signal_to_noise(gn.noise_scale_from_gradients(gaussian(10, 40_000, 0.0)))
    assert found.share_resolved == pytest.approx(0.05, abs=4 * math.sqrt(0.05 * 0.95 / 40_000))
    assert found.mean.status is gn.Status.NO_INTERVAL
    assert "5% of coordinates resolved" in str(found)


def test_coordinates_without_noise_or_without_gradient_are_counted_apart() -> None:
    g = torch.cat([gaussian(20, 3, 1.0), torch.zeros(20, 2), torch.full((20, 1), 3.0)], 1)
    found = gn.signal_to_noise(gn.noise_scale_from_gradients(g))
    assert (found.silent, found.noiseless) == (2, 1)
    assert found.values[""][:3].isfinite().all()
    assert float(found.mean) == pytest.approx(float(found.values[""][:3].mean()))


def test_rounding_of_a_constant_gradient_is_no_noise() -> None:
    g = torch.full((20, 1), 0.1) + 1e-8 * gaussian(20, 1, 0.0).float()
    assert gn.signal_to_noise(gn.noise_scale_from_gradients(g)).noiseless == 1


def test_nothing_but_dead_coordinates_has_no_mean() -> None:
    found = gn.signal_to_noise(gn.noise_scale_from_gradients(torch.zeros(4, 3)))
    assert math.isnan(float(found.mean))
    assert found.silent == 3
    assert found.share_resolved == 0


def test_three_samples_of_more_tell_nothing() -> None:
    for count in (2, 3):
        found = gn.signal_to_noise(gn.noise_scale_from_gradients(gaussian(count, 5, 1.0)))
        assert math.isnan(float(found.mean))
        assert found.mean.status is gn.Status.SIGNAL_BELOW_NOISE


def test_variances_are_needed() -> None:
    toy = gn.toy.NoisyQuadratic(torch.eye(2), torch.ones(2))
    moments = gn.gradient_moments(toy.model(), toy.loss_fn, toy.sample(8, seed=0))
    with pytest.raises(gn.ArgumentError, match="`variance=True`"):
        gn.signal_to_noise(moments)
