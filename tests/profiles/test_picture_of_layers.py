"""Bars of the layers' shares, and their names."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gradnoise as gn
from gradnoise.profiles.picture_of_layers import layers, readable
from tests.pictures_cases import profiles, with_layers

LONG = "transformer.encoder.layers.{}.attention.self.query_projection"


@pytest.fixture(scope="module")
def sixty() -> gn.Profile:
    return profiles()["60 layers"]


def bars(axes: Any, label: str) -> np.ndarray:
    found = next(group for group in axes.containers if group.get_label() == label)
    return np.array([bar.get_width() for bar in found])


def names(axes: Any) -> list[str]:
    return [tick.get_text() for tick in axes.get_yticklabels()]


def test_every_share_is_a_bar_in_percent(deep: gn.Profile) -> None:
    axes = layers(deep)
    found = list(deep.layers.values())
    assert names(axes) == list(deep.layers)
    noise = [100 * layer.noise_share for layer in found]
    sharp = [100 * float(layer.sharpness_share) for layer in found]
    both = [100 * float(layer.curvature_noise_share) for layer in found]
    for label, shares in (("noise, trΣ", noise), ("sharpness, λ", sharp), ("both, tr(HΣ)", both)):
        assert bars(axes, label) == pytest.approx(np.nan_to_num(shares))


def test_of_many_layers_the_largest_are_shown_and_the_others_are_one_row(sixty: gn.Profile) -> None:
    axes = layers(sixty, top=5)
    assert len(names(axes)) == 6
    assert names(axes)[-1] == "55 other layers"
    noise = bars(axes, "noise, trΣ")
    assert noise.sum() == pytest.approx(100)
    for label in ("sharpness, λ", "both, tr(HΣ)"):
        assert bars(axes, label).sum() == pytest.approx(100)
    largest = max(layer.noise_share for layer in sixty.layers.values())
    assert 100 * largest in noise


def test_one_layer_more_than_asked_for_is_shown_itself(deep: gn.Profile) -> None:
    assert names(layers(deep, top=7)) == list(deep.layers)
    assert names(layers(deep, top=6))[-1] == "2 other layers"


def test_intervals_are_lines(sixty: gn.Profile) -> None:
    axes = layers(sixty, top=3)
    lines = [line.get_xdata() for line in axes.lines if line.get_marker() == "|"]
    assert len(lines) == 6  # two of three shares have one, the row of the others has none
    assert sorted({round(high - low, 6) for low, high in lines}) == [2.0, 6.0]


def test_without_curvature_there_is_the_noise_alone(sixty: gn.Profile) -> None:
    axes = layers(with_layers(sixty, 3, curvature=False))
    assert [group.get_label() for group in axes.containers] == ["noise, trΣ"]


def test_the_bars_differ_without_colours(deep: gn.Profile) -> None:
    axes = layers(deep)
    assert len({group[0].get_hatch() for group in axes.containers}) == 3


def test_how_many_is_a_whole_number(deep: gn.Profile) -> None:
    with pytest.raises(gn.ArgumentError, match="`top` must be a whole number from 1 on"):
        layers(deep, top=0)


@pytest.mark.parametrize(
    ("given", "letters", "shown"),
    [
        (["0", "2"], 16, ["0", "2"]),
        ([LONG.format(i) for i in (3, 12)], 32, None),
        (["a.b.c", "a.b.d"], 3, ["c", "d"]),
        (["a_very_long_name_of_one_part", "b"], 12, ["a_very_long…", "b"]),
    ],
)
def test_long_names_are_cut(given: list[str], letters: int, shown: list[str] | None) -> None:
    found = readable(given, letters)
    assert shown is None or found == shown
    assert len(set(found)) == len(given)
    assert max(map(len, found)) <= letters


def test_numbers_of_blocks_stay() -> None:
    found = readable([LONG.format(i) for i in range(60)], 20)
    assert [name.partition("…")[0] for name in found] == [str(i) for i in range(60)]


def test_names_that_would_be_the_same_are_left_whole() -> None:
    given = ["abcdefghijkl_one", "abcdefghijkl_two"]
    assert readable(given, 8) == given
