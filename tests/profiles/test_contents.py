"""Rows and sentences of a report, before they are set."""

from __future__ import annotations

from dataclasses import replace

import pytest

import gradnoise as gn
from gradnoise.problem.optimizer_settings import OptimizerSettings
from gradnoise.profiles import contents
from gradnoise.statistics.estimate import short


def adam(profile: gn.Profile, steps: int = 5000) -> gn.Profile:
    settings = OptimizerSettings("AdamW", 0.01, 0.9, kind="adam", steps=steps, settled_after=1000)
    return replace(profile, optimizer=settings, metric="optimizer", batch_size=16)


def test_the_key_rows_end_with_the_limits_at_the_batch_size_in_use(resolved: gn.Profile) -> None:
    rows = contents.key_rows(replace(resolved, batch_size=16))
    assert [row.label for row in rows] == [
        "B_simple", "noise scale B_noise", "sharpness λ", "stable rate 2/λ", "limit at B = 16",
        "rule at B = 16",
    ]  # fmt: skip
    assert rows[-1].meaning == "(2/λ)/(1 + B_noise/B)"
    assert rows[-1].value == short(float(resolved.max_lr(16)))


def test_with_momentum_no_formula_without_it_is_shown(resolved: gn.Profile) -> None:
    settings = OptimizerSettings("SGD", 0.1, 0.9)
    rows = contents.key_rows(replace(resolved, optimizer=settings, batch_size=16))
    assert rows[-1].meaning == "a step gains less beyond"
    assert rows[3].label == "stable rate 3.8/λ"


def test_in_the_first_steps_of_an_adaptive_optimizer_there_are_no_limits(
    resolved: gn.Profile,
) -> None:
    rows = contents.key_rows(adam(resolved, steps=2))
    assert [row.label for row in rows] == ["B_simple", "noise scale B_noise", "sharpness λ"]
    assert not contents.is_drawn(adam(resolved, steps=2))
    assert contents.is_drawn(adam(resolved))


def test_without_curvature_the_gradient_part_carries_the_verdict(flat: gn.Profile) -> None:
    rows = contents.key_rows(flat)
    assert [row.label for row in rows] == [
        "loss L", "gradient |G|²", "gradient noise trΣ", "B_simple",
    ]  # fmt: skip
    assert not contents.is_drawn(flat)


@pytest.mark.parametrize("name", ["resolved", "bounds_only", "negative", "flat", "deep"])
def test_a_row_of_the_key_table_fits_eighty_columns(
    name: str, request: pytest.FixtureRequest
) -> None:
    for row in contents.key_rows(request.getfixturevalue(name)):
        assert len(row.meaning) <= 28


def test_findings_stand_beside_advice_that_was_tried_only(resolved: gn.Profile) -> None:
    assert contents.findings(resolved) == ()
    tried = resolved.with_advice(replace(resolved.recommend(), confidence="good"))
    assert contents.findings(tried) == resolved.recommend().reasons[1:]
    assert contents.title(tried) == "What to do (tried by short training: good)"


def test_caveats_are_those_of_the_verdict_then_those_of_the_measurement(
    resolved: gn.Profile,
) -> None:
    profile = replace(resolved, warnings=("a note",))
    assert contents.caveats(profile) == (*resolved.recommend().caveats, "a note")


def test_every_batch_size_has_a_value_in_every_row(resolved: gn.Profile) -> None:
    profile = replace(resolved, optimizer=OptimizerSettings("SGD", 0.1), batch_size=16)
    batches = contents.batch_sizes(profile)
    rows = contents.rate_rows(profile, batches)
    assert 16 in batches
    assert [row.label for row in rows][-2:] == ["regime", "temperature ε/B"]
    assert all(len(row.values) == len(batches) for row in rows)
    assert rows[0].values == [short(float(profile.max_lr(batch))) for batch in batches]


def test_no_batch_size_is_larger_than_the_data(resolved: gn.Profile) -> None:
    large = gn.Estimate(1000.0, 900.0, 1100.0, 0.95, 0.0, 64)
    profile = replace(resolved, estimates={**resolved.estimates, "noise_scale": large})
    assert max(contents.batch_sizes(profile)) == 64
    assert max(contents.batch_sizes(replace(profile, population=1e9))) == 8192
