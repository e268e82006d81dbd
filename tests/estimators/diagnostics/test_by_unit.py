"""Batch sizes from moments of groups are in samples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

import gradnoise as gn
from tests.unit_cases import CE, X, Y, mlp

FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "norm_test": gn.norm_test,
    "inner_product_test": gn.inner_product_test,
    "orthogonality_test": gn.orthogonality_test,
    "diversity_bound": gn.diversity_bound,
    "cabs_batch_size": lambda moments: gn.cabs_batch_size(moments, 0.1),
    "sign_noise_scale": gn.sign_noise_scale,
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_groups_of_b_count_b_times(name: str) -> None:
    moments = gn.gradient_moments(
        mlp(), CE, (X, Y), unit="group", group_size=6, variance=True, population="distribution"
    )
    assert moments.group_size == 6
    function = FUNCTIONS[name]
    found, by_group = function(moments), function(replace(moments, group_size=1))
    assert found.low == pytest.approx(6 * by_group.low, rel=1e-12)
    assert (found.samples, by_group.samples) == (96, 16)


def test_diagnostics_of_groups() -> None:
    found = gn.diagnostics(mlp(), CE, (X, Y), unit="group", group_size=6, lr=0.1)
    assert "measured on 96 samples in groups of 6" in str(found)
    assert found.gradient_diversity is None
    assert found.norm_test.low == pytest.approx(float(gn.norm_test(found.moments).low))


@pytest.mark.parametrize("population", ["dataset", "distribution"])
def test_ratios_of_groups_are_per_sample(population: Any) -> None:
    moments = gn.gradient_moments(
        mlp(), CE, (X, Y), unit="group", group_size=6, variance=True, population=population
    )
    found = gn.signal_to_noise(moments)
    by_group = gn.signal_to_noise(replace(moments, group_size=1))
    assert found.share_resolved == by_group.share_resolved > 0
    for name, values in found.values.items():
        torch.testing.assert_close(6 * values, by_group.values[name])
    assert float(found.mean) == pytest.approx(float(by_group.mean) / 6)
    assert found.mean.samples == 96
    for estimate in (found.mean, gn.sign_noise_scale(moments)):
        assert not estimate.is_exact  # other groups of the same samples have another spread
    again = gn.diagnostics(mlp(), CE, (X, Y), unit="group", group_size=6, population=population)
    assert float(again.signal_to_noise.mean) == pytest.approx(float(found.mean))
