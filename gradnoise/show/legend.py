"""The legend: below the axes, where no data is."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from .figure import figure_of
from .style import SMALL, WORDS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.legend import Legend

COLUMNS, GAP = 3, 4  # at most; in points, between axis label and legend
SHORTEST = 12  # letters of a line


def legend_below(axes: Axes) -> None:
    """A legend below the label of the x axis, in as many columns as are not wider than the axes."""
    handles, labels = axes.get_legend_handles_labels()
    if not handles:
        return
    for columns in range(min(COLUMNS, len(handles)), 0, -1):
        legend = _legend(axes, labels, columns)
        wide = legend.get_window_extent().width / axes.bbox.width
        if wide <= 1:
            return
    letters = int(max(map(len, labels)) / wide)
    _legend(axes, [textwrap.fill(label, max(letters, SHORTEST)) for label in labels], 1, SMALL)


def _legend(axes: Axes, labels: list[str], columns: int, size: str = WORDS) -> Legend:
    from matplotlib.transforms import ScaledTranslation

    handles, _ = axes.get_legend_handles_labels()
    figure = figure_of(axes)
    below = axes.xaxis.get_tightbbox()
    drop = axes.bbox.y0 - below.y0 if below is not None else 0.0
    inches = drop / figure.dpi + GAP / 72
    place = axes.transAxes + ScaledTranslation(0, -inches, figure.dpi_scale_trans)
    return axes.legend(
        handles, labels, loc="upper center", bbox_to_anchor=(0.5, 0), bbox_transform=place,
        ncols=columns, fontsize=size, frameon=False, borderaxespad=0, handlelength=2.4,
    )  # fmt: skip
