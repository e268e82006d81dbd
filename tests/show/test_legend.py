"""The legend below the axes."""

from __future__ import annotations

import pytest
from matplotlib.axes import Axes

from gradnoise.show.figure import new_panels
from gradnoise.show.legend import legend_below


def lines(width: float, *labels: str) -> Axes:
    (axes,) = new_panels(1, width, 4)
    for label in labels:
        axes.plot([0, 1], label=label)
    axes.set_xlabel("x")
    axes.figure.draw_without_rendering()
    return axes


@pytest.mark.parametrize(("width", "columns"), [(8, 3), (4, 2), (2, 1)])
def test_there_are_as_many_columns_as_there_is_room_for(width: float, columns: int) -> None:
    axes = lines(width, *["a label of a line"] * 6)
    legend_below(axes)
    assert axes.get_legend()._ncols == columns
    assert axes.get_legend().get_window_extent().width <= 1.1 * axes.bbox.width


def test_it_is_below_the_label_of_the_axis() -> None:
    axes = lines(5, "a line")
    legend_below(axes)
    legend = axes.get_legend().get_window_extent()
    assert legend.y1 < axes.xaxis.label.get_window_extent().y0


def test_a_long_label_is_broken() -> None:
    label = "a label that is longer than the picture is wide, and then some more of it"
    axes = lines(3, label)
    legend_below(axes)
    (text,) = axes.get_legend().get_texts()
    assert "\n" in text.get_text()
    assert text.get_text().replace("\n", " ") == label
    assert axes.get_legend().get_window_extent().width <= 1.1 * axes.bbox.width


def test_nothing_named_has_no_legend() -> None:
    axes = lines(3)
    legend_below(axes)
    assert axes.get_legend() is None
