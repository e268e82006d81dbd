"""A rule passes or fails by the whole interval, and cannot be told between its ends."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from gradnoise.checks.outcome import Outcome, judge
from gradnoise.checks.rule import parse
from gradnoise.problem.optimizer_settings import OptimizerSettings
from tests.checks.profiles import estimate, measured, with_scale

SCALE = with_scale(10.0, 15.0, 20.0)
JUDGED = {
    "noise_scale < 21": "passed",
    "noise_scale < 20": "cannot tell",
    "noise_scale <= 20": "passed",
    "noise_scale < 15": "cannot tell",
    "noise_scale <= 10": "cannot tell",
    "noise_scale < 10": "failed",
    "noise_scale <= 9": "failed",
    "noise_scale > 9": "passed",
    "noise_scale > 10": "cannot tell",
    "noise_scale >= 10": "passed",
    "noise_scale > 20": "failed",
    "noise_scale >= 20": "cannot tell",
    "noise_scale >= 21": "failed",
    "9 < noise_scale": "passed",
    "21 < noise_scale": "failed",
    "batch_size < noise_scale": "passed",
    "batch_size < noise_scale / 2": "cannot tell",
    "batch_size < 0.4 * noise_scale": "failed",
    "batch_size <= 0.39 * noise_scale": "failed",
}


@pytest.mark.parametrize("text", JUDGED)
def test_by_the_ends_of_the_interval(text: str) -> None:
    assert judge(SCALE, parse(text)).verdict == JUDGED[text]


def test_a_bound_is_enough_where_the_rule_is_on_its_side() -> None:
    below = with_scale(50.0, math.nan, math.inf)
    assert judge(below, parse("batch_size <= noise_scale")).verdict == "passed"
    assert judge(below, parse("noise_scale < 50")).verdict == "failed"
    found = judge(below, parse("noise_scale < 100"))
    assert found.verdict == "cannot tell"
    assert "not distinguishable from zero" in found.reason


def test_without_an_interval_nothing_is_told() -> None:
    unknown = with_scale(0.0, 15.0, math.inf, status="interval not measured")
    found = judge(unknown, parse("noise_scale > 1"))
    assert (found.verdict, "ask for intervals" in found.reason) == ("cannot tell", True)


@pytest.mark.parametrize("status", ["not converged", "negative curvature"])
def test_an_interval_that_is_none_tells_nothing(status: str) -> None:
    p = with_scale(10.0, 15.0, 20.0, status=status)
    found = judge(p, parse("noise_scale < 1000"))
    assert found.verdict == "cannot tell"
    assert found.reason.startswith(status)


def test_what_is_not_there_has_a_verdict_of_its_own() -> None:
    found = judge(replace(SCALE, optimizer=None), parse("lr-below-limit"))
    assert (found.verdict, found.left) == ("not there", None)
    assert "no learning rate" in found.reason


def test_resolved_is_about_the_values() -> None:
    assert judge(measured(), parse("resolved")).verdict == "passed"
    below = with_scale(50.0, math.nan, math.inf)
    found = judge(below, parse("resolved"))
    assert found.verdict == "failed"
    assert found.reason == "noise_scale is at least 50.0 (signal below noise)"
    assert judge(below, parse("resolved=sharpness")).verdict == "passed"


def test_settled_is_about_second_moments() -> None:
    adam = OptimizerSettings("AdamW", 0.1, 0.9, kind="adam", steps=50, settled_after=1000)
    p = replace(measured(), optimizer=adam, metric="optimizer")
    found = judge(p, parse("settled"))
    assert found.verdict == "failed"
    assert found.reason == "AdamW has taken 50 of about 1000 steps"
    later = replace(p, optimizer=replace(adam, steps=1000))
    assert judge(later, parse("settled")).verdict == "passed"
    assert judge(replace(p, optimizer=None), parse("settled")).verdict == "not there"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(40.0, "40 s"), (90.0, "1.5 minutes"), (7200.0, "2 hours"), (216000.0, "2.5 days")],
)
def test_times_are_told_in_a_fitting_unit(seconds: float, words: str) -> None:
    assert Outcome("", "passed", unit="time").told(estimate(seconds, seconds, seconds)) == words


def test_sides_are_told_with_their_intervals() -> None:
    one = Outcome("", "passed")
    assert one.told(estimate(10.0, 15.0, 20.0)) == "15.0 (10.0 to 20.0)"
    assert one.told(estimate(10.0, math.nan, math.inf)) == "≥ 10.0"
    assert one.told(estimate(0.1, 0.1, 0.1)) == "0.100"
    assert one.told(None) == ""


def test_it_can_be_written_as_values() -> None:
    found = judge(SCALE, parse("noise_scale < 21")).to_dict()
    assert (found["rule"], found["verdict"], found["unit"]) == (
        *("noise_scale < 21", "passed"), "samples",
    )  # fmt: skip
    assert found["left"]["high"] == 20.0
