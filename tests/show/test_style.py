"""The colours: told apart by everybody, seen on white and on black."""

from __future__ import annotations

import itertools

import matplotlib
import numpy as np
import pytest
from matplotlib import colors

from gradnoise.show import style

NAMED = {"noise": style.NOISE, "curvature": style.CURVATURE, "both": style.BOTH, "black": "black"}

# dichromats' view of linear RGB, severity 1: Machado, Oliveira and Fernandes (2009), table 1
VIEWS = {
    "usual": np.eye(3),
    "no long cones": [
        [0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "no middle cones": [
        [0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "no short cones": [
        [1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}  # fmt: skip
TO_XYZ = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]


def linear(color: str) -> np.ndarray:
    part = np.array(colors.to_rgb(color))
    return np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)


def lab(color: str, view: object = VIEWS["usual"]) -> np.ndarray:
    """CIELAB of a colour as it is seen."""
    x, y, z = TO_XYZ @ np.clip(np.array(view) @ linear(color), 0, 1) / [0.9505, 1, 1.089]
    x, y, z = (t ** (1 / 3) if t > 0.008856 else 7.787 * t + 16 / 116 for t in (x, y, z))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def contrast(one: str, other: str) -> float:
    """Of WCAG, 1 to 21."""
    low, high = sorted(float(linear(c) @ TO_XYZ[1]) for c in (one, other))
    return (high + 0.05) / (low + 0.05)


def test_the_view_is_that_of_the_colour_blind() -> None:
    """The usual red and green: far apart, and near to one another without middle cones."""
    red, green = "#d62728", "#6b8e23"
    far = np.linalg.norm(lab(red) - lab(green))
    near = np.linalg.norm(lab(red, VIEWS["no middle cones"]) - lab(green, VIEWS["no middle cones"]))
    assert far > 80 > 30 > near


@pytest.mark.parametrize("view", VIEWS)
def test_colours_are_far_apart(view: str) -> None:
    for one, other in itertools.combinations(NAMED.values(), 2):
        apart = np.linalg.norm(lab(one, VIEWS[view]) - lab(other, VIEWS[view]))
        assert apart > 30, (one, other)


@pytest.mark.parametrize("color", [style.NOISE, style.CURVATURE, style.FAINT])
@pytest.mark.parametrize("ground", ["white", "black"])
def test_lines_are_seen_on_white_and_on_black(color: str, ground: str) -> None:
    assert contrast(color, ground) >= 3


def test_dashes_differ() -> None:
    dashes = [style.SOLID, style.LONG, style.SHORT, style.MIXED, style.DOTS]
    assert len(set(map(str, dashes))) == 5


def test_ink_follows_the_style() -> None:
    assert style.ink() == "black"
    with matplotlib.rc_context(matplotlib.style.library["dark_background"]):
        assert style.ink() == "white"
