"""The picture of branches: two losses against the batch size, the tolerance, B_crit."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import gradnoise as gn
from gradnoise.trials.picture import branches
from tests.reports import quadratic_profile
from tests.starts import ended, made_branches


def labels(axes: Any) -> list[str]:
    return [text.get_text() for text in axes.get_legend().get_texts()]


def curve(axes: Any, label: str) -> Any:
    """Points and half lengths of the error bars."""
    found = next(c for c in axes.containers if c.get_label() == label)
    line, _, (bars,) = found.lines
    halves = [(top - bottom) / 2 for (_, bottom), (_, top) in bars.get_segments()]
    return line.get_xydata().tolist(), halves


def test_both_losses_are_drawn_with_their_errors() -> None:
    axes = branches(made_branches())
    points, errors = curve(axes, "at the mean weights of the last half")
    assert points == [[4, pytest.approx(0.19)], [16, pytest.approx(0.31)], [64, 0.91]]
    assert errors == pytest.approx([0.01] * 3)
    points, _ = curve(axes, "batches of the last quarter")
    assert points[0] == [4, pytest.approx(0.31)]


def test_the_tolerance_is_a_band_above_the_lowest_loss() -> None:
    axes = branches(made_branches())
    (band,) = (p for p in axes.patches if p.get_label().startswith("within 10 %"))
    assert (band.get_y(), band.get_height()) == pytest.approx((0.19, 0.019))


def test_the_critical_batch_size_is_marked_where_it_is_known() -> None:
    axes = branches(made_branches())
    (label,) = (each for each in labels(axes) if each.startswith("critical batch size"))
    assert " to " in label
    flat = (*ended(4, 0.1, (0.1,)), *ended(16, 0.1, (0.1,)))
    assert not any("critical" in label for label in labels(branches(gn.Branches(flat, {}))))


def test_one_seed_has_no_error() -> None:
    axes = branches(gn.Branches((*ended(4, 0.1, (0.1,)), *ended(16, 0.1, (0.2,))), {}))
    assert curve(axes, "batches of the last quarter")[1] == [0.0, 0.0]


def test_it_is_saved_where_a_path_is_given(tmp_path: Path) -> None:
    path = tmp_path / "branches.png"
    made_branches().plot(path)
    assert path.read_bytes().startswith(b"\x89PNG")


def test_a_profile_adds_its_noise_scales() -> None:
    scales = {
        "simple_noise_scale": gn.Estimate(20.0, 10.0, 40.0, 0.95, 1.0, 64),
        "noise_scale": gn.Estimate(
            math.nan, 8.0, math.inf, 0.95, 1.0, 64, gn.Status.SIGNAL_BELOW_NOISE
        ),
    }
    profile = replace(quadratic_profile(1.0), estimates=scales)
    axes = branches(made_branches(), predictions=profile)
    said = [label for label in labels(axes) if label.startswith("profile")]
    assert said == [
        "profile: $B_{simple}$ = 20.0 [10.0, 40.0]",
        "profile: $B_{noise}$ at least 8.00",
    ]
    bars = [line for line in axes.lines if line.get_linewidth() == 3]
    assert [list(bar.get_xdata()) for bar in bars] == [[10, 40], [8, axes.get_xlim()[1]]]


def test_with_a_schedule_there_is_one_curve() -> None:
    axes = branches(replace(made_branches(), settings={"schedule": "linear"}))
    points, _ = curve(axes, "at the end (schedule: linear)")
    assert points[0] == [4, pytest.approx(0.19)]
    assert len(axes.containers) == 1
    assert "within 10 % of the lowest loss" in labels(axes)
