"""One check: when an interval holds the truth, and when numbers agree."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

import gradnoise as gn
from gradnoise.validation.check import exact, statistical

ABOUT = gn.Estimate(2.0, 1.0, 3.0, 0.95, 0.5, 10)


@pytest.mark.parametrize(("truth", "holds"), [(1.0, True), (0.99, False), (3.01, False)])
def test_an_interval_has_to_hold_the_truth(truth: float, holds: bool) -> None:
    check = statistical("toy", "x", truth, ABOUT)
    assert check.holds == holds
    assert check.z == pytest.approx((2.0 - truth) / 0.5)


def test_a_bound_has_to_be_true() -> None:
    bound = gn.Estimate(math.nan, 3.0, math.inf, 0.95, math.nan, 10, gn.Status.SIGNAL_BELOW_NOISE)
    assert statistical("toy", "x", 4.0, bound).holds
    assert not statistical("toy", "x", 2.0, bound).holds
    assert math.isnan(statistical("toy", "x", 4.0, bound).z)


def test_exact_numbers_have_to_agree() -> None:
    assert exact("toy", "x", 1.0, 1.0 + 1e-7).holds
    assert not exact("toy", "x", 1.0, 1.0 + 1e-5).holds
    assert statistical("toy", "x", 2.0, replace(ABOUT, low=2.0, high=2.0, stderr=0.0)).holds
    assert not statistical("toy", "x", 2.1, replace(ABOUT, low=2.0, high=2.0, stderr=0.0)).holds
