"""What the charts of the page hold; how they look is seen in test_page."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

import gradnoise as gn
from gradnoise.learning_rate.advice import Recommendation
from gradnoise.problem.optimizer_settings import OptimizerSettings
from gradnoise.profiles.charts import POINTS, charts
from gradnoise.profiles.regime import batch_grid


def values(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """All rows of all layers."""
    return (
        [row for rows in spec["datasets"].values() for row in rows]
        if "datasets" in spec
        else [row for layer in spec["layer"] for row in layer.get("data", {}).get("values", [])]
    )


def curve(spec: dict[str, Any], name: str) -> dict[float, float]:
    return {row["B"]: row["lr"] for row in values(spec) if row.get("curve") == name}


def trained(profile: gn.Profile, lr: float = 0.1, batch_size: int = 16) -> gn.Profile:
    settings = OptimizerSettings("SGD", lr)
    return replace(profile, optimizer=settings, batch_size=batch_size)


def test_the_curves_are_the_limits(resolved: gn.Profile) -> None:
    spec = charts(trained(resolved))["regime"]
    limits = {
        "noise-scale rule": resolved.max_lr,
        "mean-square limit": lambda batch: resolved.mean_square_lr(min(batch, 64)),
        "full-batch limit": lambda _: resolved.stable_lr(),
    }
    for name, limit in limits.items():
        drawn = curve(spec, name)
        assert len(drawn) == 60
        for batch, rate in drawn.items():
            assert rate == pytest.approx(float(limit(batch)))


def test_both_settings_are_points(resolved: gn.Profile) -> None:
    advice = trained(resolved).recommend()
    points = {
        row["name"]: row for row in values(charts(trained(resolved))["regime"]) if "setting" in row
    }
    assert (points["now"]["B"], points["now"]["lr"]) == (16, 0.1)
    assert (points["to try"]["B"], points["to try"]["lr"]) == (advice.batch_size, advice.lr)
    assert "now" not in {row.get("name") for row in values(charts(resolved)["regime"])}


def test_a_setting_that_is_kept_is_one_point(resolved: gn.Profile) -> None:
    kept = Recommendation(16, 0.1, ("Keep it.",), "good")
    rows = values(charts(trained(resolved).with_advice(kept))["regime"])
    assert [row["name"] for row in rows if "setting" in row] == ["now", "now"]


def test_bounds_alone_are_a_band_without_a_line(bounds_only: gn.Profile) -> None:
    spec = charts(bounds_only)["regime"]
    assert curve(spec, "noise-scale rule") == {}
    band = [row for row in values(spec) if "high" in row and "B" in row]
    assert len(band) == 60
    assert all(0 < row["low"] < row["high"] < math.inf for row in band)
    assert "trade_off" not in charts(bounds_only)


def test_without_a_lower_bound_of_the_sharpness_there_is_no_map(resolved: gn.Profile) -> None:
    wide = replace(resolved.sharpness, low=-0.1)
    assert charts(replace(resolved, estimates={**resolved.estimates, "sharpness": wide})) == {}


@pytest.mark.parametrize("name", ["negative", "flat"])
def test_without_a_limit_there_is_no_map(name: str, request: pytest.FixtureRequest) -> None:
    assert charts(request.getfixturevalue(name)) == {}


def test_the_trade_off_is_that_of_the_noise_scale(resolved: gn.Profile) -> None:
    rows = values(charts(trained(resolved))["trade_off"])
    scale = float(resolved.noise_scale)
    for row in rows:
        assert row["steps"] == pytest.approx(1 + scale / row["B"])
        assert row["samples"] == pytest.approx(1 + row["B"] / scale)
    named = {row["name"]: row for row in rows if row["name"]}
    assert named["B_noise"]["steps"] == named["B_noise"]["samples"] == 2
    assert named["now: 16"]["B"] == 16


def fields(spec: dict[str, Any], mark: str) -> list[dict[str, str]]:
    """Which field each channel of the layers with a mark shows."""
    kinds = [layer["mark"] for layer in spec["layer"]]
    names = [kind if isinstance(kind, str) else kind["type"] for kind in kinds]
    return [
        {channel: own["field"] for channel, own in layer["encoding"].items() if "field" in own}
        for layer, name in zip(spec["layer"], names, strict=True)
        if name == mark
    ]


def test_steps_are_to_the_right_and_samples_upwards(resolved: gn.Profile) -> None:
    for mark in ("line", "point", "text"):
        for shown in fields(charts(trained(resolved))["trade_off"], mark):
            assert (shown["x"], shown["y"]) == ("steps", "samples")


def test_the_noise_scale_with_curvature_is_the_firm_line(resolved: gn.Profile) -> None:
    spec = charts(trained(resolved))["regime"]
    rules = [layer for layer in spec["layer"] if layer["mark"]["type"] == "rule"]
    firm = {
        row["name"].split()[0]: layer["mark"]["strokeDash"] == [1, 0]
        for layer in rules
        for row in layer["data"]["values"]
    }
    assert firm == {"B_simple": False, "B_noise": True}


def test_the_strip_around_the_limit_is_its_interval(resolved: gn.Profile) -> None:
    four = gn.Estimate(4.0, 2.0, 8.0, 0.95, 0.5, 64)
    wide = replace(resolved, estimates={**resolved.estimates, "sharpness": four})
    strips = [
        (row["low"], row["high"])
        for row in values(charts(wide)["regime"])
        if set(row) == {"low", "high"}
    ]
    assert (0.25, 1.0) in strips
    assert any(low == 0.5 and high > 1 for low, high in strips)


def test_the_advised_rate_is_on_the_map(resolved: gn.Profile) -> None:
    far = Recommendation(16, 40.0, ("Tried.",), "good")
    spec = charts(trained(resolved).with_advice(far))["regime"]
    ends = [
        layer["encoding"]["y"]["scale"]["domain"]
        for layer in spec["layer"]
        if "scale" in layer["encoding"].get("y", {})
    ]
    assert ends
    assert all(low < 40.0 < high for low, high in ends)


def test_of_another_optimizer_the_axis_says_whose_rates_these_are(resolved: gn.Profile) -> None:
    settings = OptimizerSettings("AdamW", 0.001, 0.9, kind="adam")
    text = str(charts(replace(resolved, optimizer=settings))["regime"])
    assert "of plain SGD, not AdamW" in text
    assert "of plain SGD" not in str(charts(resolved)["regime"])


@pytest.mark.parametrize("scale", [0.0, 1e-3, 1e3, 1e9, 1e15])
def test_any_noise_scale_is_inside_of_the_map(resolved: gn.Profile, scale: float) -> None:
    known = gn.Estimate(scale, scale / 2, 2 * scale, 0.95, 0.0, 64)
    estimates = {**resolved.estimates, "noise_scale": known, "simple_noise_scale": known}
    profile = trained(replace(resolved, estimates=estimates, population=math.inf))
    grid = batch_grid(profile, POINTS)
    assert grid[0] == 1
    assert grid[-1] >= scale or scale > 2**40  # no one trains with such batches
    assert "regime" in charts(profile)
    assert ("trade_off" in charts(profile)) == (scale > 0)
