"""The names of the regions, and of the lines of equal temperature."""

from __future__ import annotations

from dataclasses import replace

import pytest

import gradnoise as gn
from gradnoise.profiles.picture import regime_map
from tests.pictures_cases import profiles


def named(profile: gn.Profile) -> dict[str, tuple[float, float]]:
    """Places by the first line of a name."""
    texts = regime_map(profile).texts
    return {text.get_text().split("\n")[0]: text.get_position() for text in texts}


@pytest.mark.parametrize("case", ["exact", "resolved", "momentum", "huge"])
def test_each_region_is_named_in_itself(case: str) -> None:
    profile = profiles()[case]
    land, scale = profile.landscape(profile.setting.momentum), float(profile.noise_scale)
    places = {name: place for name, place in named(profile).items() if "T = " not in name}
    assert {"unstable at this point", "noise-dominated:"} <= set(places)
    for name, (batch, rate) in places.items():
        rule, square = float(land.max_lr(batch)), float(land.mean_square_lr(batch))
        assert {
            "unstable at this point": rate > float(land.stable_lr),
            "a step gains less": rule < rate < square and batch < scale,
            "noise-dominated:": rate < rule and batch < scale,
            "curvature-dominated:": rate < rule and batch > scale,
            "curvature-": rate < rule and batch > scale,
        }[name], name


def test_without_a_noise_scale_only_the_unstable_region_is_named() -> None:
    names = named(profiles()["unknown"])
    assert [name for name in names if "T = " not in name] == ["unstable at this point"]


def test_a_temperature_is_named_where_its_line_enters() -> None:
    profile = replace(profiles()["resolved"], batch_size=None, optimizer=None)
    axes = regime_map(profile)
    names = [text for text in axes.texts if text.get_text().startswith("T = ")]
    assert names
    for text in names:
        power = int(text.get_text().partition("{")[2].partition("}")[0])
        batch, rate = text.get_position()
        assert 0.8 < rate / batch / 10.0**power < 1  # just below the line
        left, bottom = axes.get_xlim()[0], axes.get_ylim()[0]
        assert batch < 2 * left or rate < 2 * bottom
