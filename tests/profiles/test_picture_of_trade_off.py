"""Steps against samples."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import gradnoise as gn
from gradnoise.profiles.picture_of_trade_off import trade_off
from tests.pictures_cases import UNKNOWN, estimate, profiles, used, with_scales


def line(axes: Any, label: str) -> Any:
    return next(each for each in axes.lines if each.get_label().startswith(label))


def labels(axes: Any) -> list[str]:
    return [text.get_text() for text in axes.get_legend().get_texts()]


@pytest.fixture
def sixty() -> gn.Profile:
    """B_noise = 60 [20, 200], B = 16."""
    return profiles()["resolved"]


def test_the_curve_is_that_of_the_noise_scale(sixty: gn.Profile) -> None:
    steps, samples = line(trade_off(sixty), "steps 1 + $B_{noise}$/B").get_data()
    assert (steps - 1) * (samples - 1) == pytest.approx(np.ones(len(steps)))


def test_the_batch_size_in_use_is_a_point_within_its_interval(sixty: gn.Profile) -> None:
    axes = trade_off(sixty)
    point = line(axes, "now: B = 16, 4.75 × steps, 1.27 × samples")
    assert point.get_xydata()[0] == pytest.approx([1 + 60 / 16, 1 + 16 / 60])
    steps, samples = line(axes, "B = 16 within the interval of $B_{noise}$").get_data()
    assert (steps.max(), steps.min()) == pytest.approx((1 + 200 / 16, 1 + 20 / 16))
    assert (samples.min(), samples.max()) == pytest.approx((1 + 16 / 200, 1 + 16 / 20))


def test_batch_sizes_are_marked_and_named_and_the_critical_one_is_where_both_are_2(
    sixty: gn.Profile,
) -> None:
    axes = trade_off(sixty)
    assert line(axes, "critical: B = 60.0, 2 × both").get_xydata().tolist() == [[2, 2]]
    steps, samples = line(axes, "batch sizes B").get_data()
    sizes = 60 * (samples - 1)
    assert sizes == pytest.approx([4**k for k in range(1, 6)])
    assert steps == pytest.approx(1 + 60 / sizes)
    places = {int(text.get_text()): text.get_position() for text in axes.texts}
    assert set(places) <= set(np.round(sizes).astype(int).tolist())
    assert len(places) >= 4
    for size, (x, y) in places.items():
        assert 1 < x / (1 + 60 / size) < 1.25
        assert 1 < y / (1 + size / 60) < 1.25


def test_no_batch_size_is_beyond_the_population() -> None:
    profile = profiles()["beyond N"]
    axes = trade_off(profile)
    scale = float(profile.noise_scale)
    assert max(scale * (line(axes, "batch sizes").get_ydata() - 1)) <= profile.population
    assert any(label.startswith("now: B = 200,") for label in labels(axes))


def test_bounds_leave_a_part_of_the_curve_open(sixty: gn.Profile) -> None:
    bounds = estimate(float("nan"), 32.0, float("inf"), gn.Status.SIGNAL_BELOW_NOISE)
    unknown = with_scales(sixty, noise_scale=bounds, simple_noise_scale=UNKNOWN)
    axes = trade_off(unknown)
    assert axes.get_title().endswith("$B_{noise}$ at least 32.0")
    steps, _ = line(axes, "B = 16 within").get_data()
    assert steps.min() == pytest.approx(1 + 32 / 16)
    assert not any("critical" in label or "now" in label for label in labels(axes))


@pytest.mark.parametrize("measured", [True, False])
def test_the_simple_noise_scale_stands_in_where_it_alone_is_known(
    sixty: gn.Profile, measured: bool
) -> None:
    simple = with_scales(sixty, noise_scale=UNKNOWN)
    if not measured:
        left = {k: v for k, v in sixty.estimates.items() if k != "noise_scale"}
        simple = used(replace(sixty, estimates=left), "SGD", 0.05, 16)
    axes = trade_off(simple)
    assert axes.get_title().replace("\n", " ").endswith("$B_{simple}$ = 40.0 [15.0, 90.0]")
    assert "critical: B = 40.0, 2 × both" in labels(axes)


def test_a_negative_noise_scale_trades_nothing(sixty: gn.Profile) -> None:
    negative = estimate(float("nan"), float("-inf"), 0.0, gn.Status.NEGATIVE_CURVATURE)
    profile = with_scales(sixty, noise_scale=negative, simple_noise_scale=UNKNOWN)
    with pytest.raises(gn.NotMeasuredError, match="traded where a noise scale is positive"):
        trade_off(profile)
