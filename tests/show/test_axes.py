"""The figure that all pictures are drawn on."""

from __future__ import annotations

import sys

import pytest

from gradnoise.show.axes import canvas


def test_a_figure_has_the_size_asked_for_and_one_pair_of_axes() -> None:
    figure, axes = canvas(6, 3)
    assert tuple(figure.get_size_inches()) == (6, 3)
    assert figure.axes == [axes]


def test_it_is_drawn_without_pyplot_and_without_a_display(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    figure, _ = canvas()
    figure.canvas.draw()


def test_without_matplotlib_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(
        ImportError, match=r"plots need matplotlib: pip install 'gradnoise\[plot\]'"
    ):
        canvas()
