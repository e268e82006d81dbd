"""A quotient has the samples, the freedom and the level of the moments that it comes from."""

from __future__ import annotations

import math

import pytest

import gradnoise as gn
from gradnoise.estimators.quotient import quotient
from gradnoise.statistics.quantile import quantile
from gradnoise.statistics.ratio import ratio
from tests.numbers import rows


def test_it_is_the_ratio_with_all_that_the_moments_know() -> None:
    moments = gn.noise_scale_from_gradients(rows(9), level=0.8)
    found = quotient(6.0, 3.0, moments, variances=(0.5, 0.2), covariance=0.1)
    expected = ratio(
        *(6.0, 3.0), variances=(0.5, 0.2), covariance=0.1, level=0.8, samples=9, freedom=8
    )
    assert found == expected
    for end in (found.low, found.high):  # the ends solve Fieller's equation
        reach = quantile(0.8, 8) * math.sqrt(0.5 - 2 * end * 0.1 + end**2 * 0.2)
        assert abs(6 - end * 3) == pytest.approx(reach)


def test_a_negative_denominator_is_no_negative_curvature() -> None:
    moments = gn.noise_scale_from_gradients(rows(9))
    found = quotient(6.0, -3.0, moments, variances=(0.5, 0.2))
    assert found.status is gn.Status.SIGNAL_BELOW_NOISE
    assert found.high == math.inf
