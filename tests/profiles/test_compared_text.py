"""The words of a comparison."""

from __future__ import annotations

from dataclasses import replace

import pytest

import gradnoise as gn
from gradnoise.problem.optimizer_settings import OptimizerSettings
from gradnoise.statistics.transform import scaled
from tests.reports import words


def times(profile: gn.Profile, **factors: float) -> gn.Profile:
    changed = {name: scaled(profile.estimates[name], by) for name, by in factors.items()}
    return replace(profile, estimates={**profile.estimates, **changed})


def used(profile: gn.Profile, batch_size: int, lr: float = 0.1) -> gn.Profile:
    return replace(profile, batch_size=batch_size, optimizer=OptimizerSettings("SGD", lr))


def test_the_verdict_comes_first(resolved: gn.Profile) -> None:
    text = str(resolved.compare(times(resolved, trace_cov=3.0)))
    lines = text.split("\n")
    assert lines[0] == "first, then second"
    assert lines[2] == "What changed"
    assert lines[3].startswith("- Beyond their errors: gradient noise trΣ: 3.00 times as large")


def test_small_changes_are_told_apart_from_large_ones(resolved: gn.Profile) -> None:
    found = resolved.compare(times(resolved, trace_cov=3.0, grad_sq_norm=1.01))
    assert found.verdict[0].endswith("Beyond their errors, by less than 5%: gradient |G|².")


def test_where_nothing_changed_it_says_what_that_means(resolved: gn.Profile) -> None:
    found = resolved.compare(resolved)
    assert found.verdict[0].startswith("No quantity changed beyond its error. The intervals below")
    assert found.verdict[1].startswith("Within their errors: loss L, ")


def test_what_cannot_be_told_says_why(bounds_only: gn.Profile) -> None:
    text = words("\n".join(bounds_only.compare(bounds_only).verdict))
    assert "Cannot be told of noise scale B_noise: signal below noise in first, signal" in text


def test_what_only_one_has_is_named(resolved: gn.Profile, flat: gn.Profile) -> None:
    text = words(resolved.compare(flat))
    assert "Measured in one of them only: curvature GᵀHG, tr(HΣ), noise scale B_noise" in text
    assert (
        "Limits of the learning rate are not compared. In second: curvature was not measured"
        in text
    )


def test_the_regimes_and_the_rates_in_use_are_judged(resolved: gn.Profile) -> None:
    size = 8  # B_noise is 1.1 samples
    first = used(times(resolved, noise_scale=100.0), size, lr=0.01)
    second = used(times(resolved, sharpness=100.0), size, lr=0.9)
    text = words(first.compare(second))
    assert f"The regime of batch size {size}: noise-dominated, then curvature-dominated." in text
    assert "The learning rate 0.01 of first is below it." in text
    assert "The learning rate 0.9 of second is beyond it." in text
    assert f"learning rate at B = {size}" in text


def test_a_regime_that_stays_is_said_once(resolved: gn.Profile, bounds_only: gn.Profile) -> None:
    both = used(resolved, 8).compare(used(resolved, 8))
    assert "Batch size 8 is curvature-dominated in both." in words(both)
    unresolved = used(bounds_only, 64).compare(used(bounds_only, 64))
    assert "The regime of batch size 64 is not resolved in either." in words(unresolved)


def test_what_to_try_is_side_by_side(resolved: gn.Profile, negative: gn.Profile) -> None:
    advice = resolved.recommend()
    last = resolved.compare(negative).verdict[-1]
    assert last.startswith(f"To try next: batch size {advice.batch_size} with learning rate ")
    assert last.endswith("then nothing follows (second).")


def test_numbers_that_do_not_compare_are_left_out(resolved: gn.Profile) -> None:
    other = replace(resolved, objective="another one")
    text = words(resolved.compare(other))
    assert "No quantity can be compared: see how they were measured." in text
    assert (
        "How they were measured differs - objective: mean loss of the samples, then another" in text
    )
    assert "measured first second" not in text


def test_layers_are_named(deep: gn.Profile) -> None:
    names = list(deep.layers)
    grown = {
        name: replace(layer, trace_cov=scaled(layer.trace_cov, 3.0 + names.index(name)))
        for name, layer in deep.layers.items()
    }
    text = words(deep.compare(replace(deep, layers=grown)))
    assert f"8 of 8 layers changed beyond their errors, the most of them: {names[7]} (grad" in text
    assert text.count("gradient noise trΣ: ") == 5
    assert "None of the 8 layers changed beyond its error." in words(deep.compare(deep))


@pytest.mark.parametrize("columns", [60, 100])
def test_lines_are_no_longer_than_the_terminal(
    resolved: gn.Profile, columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gradnoise.show.table.width", lambda: columns)
    text = str(used(resolved, 8).compare(used(times(resolved, trace_cov=3.0), 16)))
    assert max(map(len, text.split("\n"))) <= columns
