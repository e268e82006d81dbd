"""From unbiased parts with their errors to estimates."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from gradnoise.estimators.noise.sums import Parts, Sums
from gradnoise.statistics.skew import Skew
from tests.many import opened

NONE = torch.zeros(0)
SUMS = Sums(
    trace=6.0,
    curvature=3.0,
    of_probes=(0.0, 0.0),
    of_samples=(0.0, 0.0, 0.0),
    freedom=(10.0, 20.0),
    skew=Skew.from_moment(torch.zeros(2, 2, 2, dtype=torch.float64), 20),
    parts=Parts(NONE, NONE, False),
)


def test_without_errors_all_is_exact() -> None:
    found = SUMS.scales(opened().moments(), 0.0)
    for name, value in (("hessian", 2.0), ("grad_curvature", 3.0), ("trace_hessian_cov", 6.0)):
        estimate = getattr(found, name)
        assert (estimate.low, float(estimate), estimate.high) == (value, value, value)


def test_variances_of_both_sources_add() -> None:
    sums = dataclasses.replace(SUMS, of_probes=(0.09, 0.01), of_samples=(0.16, 0.03, 0.0))
    found = sums.scales(opened().moments(), 0.0)
    assert found.trace_hessian_cov.stderr == pytest.approx(0.5)
    assert found.grad_curvature.stderr == pytest.approx(0.2)


def test_an_error_of_the_products_is_relative() -> None:
    found = SUMS.scales(opened().moments(), 0.01)
    assert found.trace_hessian_cov.stderr == pytest.approx(0.06)
    assert found.grad_curvature.stderr == pytest.approx(0.03)


def test_a_noise_in_common_makes_the_ratio_more_certain() -> None:
    free, bound = (
        dataclasses.replace(SUMS, of_samples=(0.16, 0.04, shared)).scales(opened().moments(), 0.0)
        for shared in (0.0, 0.07)
    )
    widths = [found.hessian.high - found.hessian.low for found in (free, bound)]
    assert widths[1] < 0.6 * widths[0]
