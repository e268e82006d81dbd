"""The words in the plane of the regime map: its regions, and the lines of equal temperature."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from ..learning_rate.landscape import Landscape
from ..show.style import CURVATURE, FAINT, NOISE, SMALL, WORDS, ink
from ..show.words import put

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GRID = np.linspace(0.02, 0.98, 49)  # of tried places, in fractions of the axes


def name_regions(axes: Axes, landscape: Landscape) -> None:
    """Names of the regions, each where there is room for it; without room, no name."""
    scale = landscape.noise_scale
    inverse = axes.transAxes + axes.transData.inverted()
    batches = inverse.transform(np.column_stack([GRID, np.zeros_like(GRID)]))[:, 0][:, None]
    rates = inverse.transform(np.column_stack([np.zeros_like(GRID), GRID]))[:, 1][None, :]
    beyond = rates > landscape.stable_lr.high
    _name(axes, ["unstable at this point", "unstable"], beyond & (batches > 0), CURVATURE)
    if not scale.is_resolved:
        return
    rule, square = (
        np.array([float(limit(batch)) for batch in batches[:, 0]])[:, None]
        for limit in (landscape.max_lr, landscape.mean_square_lr)
    )
    left = batches < float(scale)
    _name(axes, ["a step gains less"], (rule < rates) & (rates < square) & left, NOISE)
    below = rates < np.minimum(rule, square)
    _name(
        axes,
        ["noise-dominated:\nlarger batches\nsave steps", "noise-\ndominated"],
        below & left,
        ink(),
    )
    _name(
        axes,
        ["curvature-dominated:\nlarger batches\nsave few steps", "curvature-\ndominated"],
        below & ~left,
        ink(),
    )


def _name(axes: Axes, texts: list[str], region: np.ndarray, color: Any) -> None:
    """The first name that has room, as near as it can be to the middle of a region.

    Args:
        axes: of the map.
        texts: the name, and shorter ones.
        region: whether a place of GRID x GRID belongs to it.
        color: of the words.
    """
    spots = np.column_stack([GRID[index] for index in np.nonzero(region)])
    if len(spots):
        near = np.argsort(((spots - spots.mean(0)) ** 2).sum(1), kind="stable")
        look = {"fontsize": WORDS, "ha": "center", "va": "center", "style": "italic"}
        places = [(x, y) for x, y in spots[near].tolist()]
        for text in texts:
            if put(axes, text, places, {**look, "color": color}):
                return


def name_isotherms(axes: Axes, slopes: dict[int, float]) -> None:
    """T of each line below it, where it enters the picture at the left edge or at the bottom.

    Args:
        axes: of the map.
        slopes: ε/B by the power of ten that T is.
    """
    look = {"fontsize": SMALL, "ha": "left", "va": "top", "color": FAINT}
    (left, right), (bottom, _) = axes.get_xlim(), axes.get_ylim()
    for power, slope in slopes.items():
        spots = []
        for step in (0.01, 0.03, 0.05, 0.08):
            batch = math.exp(math.log(max(left, bottom / slope)) + step * math.log(right / left))
            x, y = (axes.transData - axes.transAxes).transform((batch, slope * batch))
            spots.append((float(x), float(y) - 0.005))
        put(axes, f"T = $10^{{{power}}}$", spots, look)
