"""The Axes of every picture, finished alike."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from .figure import check_picture, figure_of, lay_out, save
from .legend import legend_below
from .style import TITLE, ink
from .words import fit

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

FEW = 200.0  # largest over smallest number on an axis that is labelled between powers of ten


def finish(axes: Axes, title: str = "") -> Axes:
    """The Axes with title and legend, and without the upper and right frame.

    Nothing else in their figure is changed. Where the figure has a layout, such as "constrained",
    it is laid out as for a drawing, so that what comes next knows the room.
    """
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    if title:
        axes.set_title(title, fontsize=TITLE, color=ink())
    lay_out(axes)
    _fit(axes)
    legend_below(axes)
    lay_out(axes)
    if _fit(axes):
        lay_out(axes)
        _fit(axes)  # lines that were broken have changed the room of the others
        lay_out(axes)
    return axes


def _fit(axes: Axes) -> bool:
    """Break lines that are too long; whether there were any."""
    width, height = axes.bbox.width, axes.bbox.height
    labels = ((axes.title, width), (axes.xaxis.label, width), (axes.yaxis.label, height))
    broken = [fit(text, room) for text, room in labels]
    return any(broken)


def plain_numbers(axis: Axis) -> None:
    """Label a logarithmic axis with numbers as they are; very large and small ones as powers."""
    base = getattr(axis.get_transform(), "base", 10)

    def label(value: float, _: float) -> str:
        if value <= 0 or 1e-4 <= value < 1e5:
            return f"{value:g}"
        return f"${base:g}^{{{round(math.log(value, base))}}}$"

    axis.set_major_formatter(label)


def few_numbers(axis: Axis) -> None:
    """Label a logarithmic axis at 1, 2, 5, 10 and so on; a long one at powers of ten alone."""
    from matplotlib.ticker import LogLocator, NullFormatter

    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < FEW else (1,)))
    axis.set_minor_formatter(NullFormatter())
    plain_numbers(axis)


def plotted(draw: Callable[[], Axes], path: str | Path | None, axes: Axes | None) -> Figure | Axes:
    """What a method `plot` returns: the Figure, or the caller's Axes; saved to `path` when given.

    Args:
        draw: makes the picture.
        path: where to save it; it is checked before anything is drawn.
        axes: of the caller, in which `draw` draws, or None.

    Raises:
        ArgumentError: the file cannot be written, or not in that format.
        ImportError: matplotlib is not installed.
    """
    if path is not None:
        check_picture(path)
    drawn = draw()
    figure = figure_of(drawn)
    if path is not None:
        save(figure, path)
    return figure if axes is None else drawn
