"""What is printed of several estimates."""

from __future__ import annotations

import math

import gradnoise as gn
from gradnoise.estimators.report import line, out_of, report


def test_every_estimate_has_a_line_with_value_and_interval() -> None:
    known = gn.Estimate(2.0, 1.0, 4.0, 0.95, 0.5, 10)
    exact = gn.Estimate(3.0, 3.0, 3.0, 0.95, 0.0, 10)
    weak = gn.Estimate(math.nan, 7.0, math.inf, 0.95, math.nan, 10, gn.Status.SIGNAL_BELOW_NOISE)
    text = report(
        "measured", [line("first", known, "samples"), line("second", exact), line("third", weak)]
    )
    heading, titles, rule, *rows = text.splitlines()
    assert heading == "measured"
    assert titles.split() == ["measured", "value", "interval"]
    assert set(rule.strip()) == {"─"}
    assert [row.split() for row in rows] == [
        ["first", "2.00", "samples", "1.00", "to", "4.00"],
        ["second", "3.00", "exact"],
        ["third", "≥", "7.00", "signal", "below", "noise"],
    ]


def test_the_population_is_named() -> None:
    assert out_of(6, 20.0) == "6 samples out of 20"
    assert out_of(6, math.inf) == "6 samples out of a distribution"
