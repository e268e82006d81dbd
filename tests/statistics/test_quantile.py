"""Quantiles against printed tables."""

from __future__ import annotations

import math

import pytest

import gradnoise as gn
from gradnoise.statistics.quantile import quantile

INF, NAN = math.inf, math.nan


class TestQuantile:
    @pytest.mark.parametrize(
        ("level", "freedom", "tabulated"),  # printed tables of Student's t, two-sided
        [
            (0.95, 1, 12.706),
            (0.95, 2, 4.303),
            (0.95, 10, 2.228),
            (0.95, 30, 2.042),
            (0.90, 10, 1.812),
            (0.99, 5, 4.032),
            (0.90, INF, 1.645),
            (0.95, INF, 1.960),
            (0.99, INF, 2.576),
        ],
    )
    def test_it_is_the_tabulated_one(self, level, freedom, tabulated):
        assert quantile(level, freedom) == pytest.approx(tabulated, abs=5.1e-4)

    @pytest.mark.parametrize("level", [0.0, 1.0, -0.5, 95.0, NAN])
    def test_a_level_that_is_no_coverage_is_refused(self, level):
        with pytest.raises(gn.ArgumentError, match="`level`"):
            quantile(level, 10)
