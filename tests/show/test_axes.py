"""The canvas of plots: drawn without pyplot."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from gradnoise.show import axes


def test_a_figure_of_the_size_asked_for_has_one_pair_of_axes() -> None:
    figure, drawn = axes.canvas(5, 3)
    assert figure.get_size_inches().tolist() == [5, 3]
    assert figure.axes == [drawn]


def test_panels_above_one_another_have_one_x_axis() -> None:
    figure, panels = axes.canvas(rows=2)
    upper, lower = panels
    assert figure.axes == [upper, lower]
    upper.set_xlim(3, 4)
    assert lower.get_xlim() == (3, 4)


def test_a_figure_can_be_written_and_pyplot_does_not_know_it(tmp_path) -> None:
    from matplotlib import pyplot

    figure, drawn = axes.canvas()
    drawn.plot([0, 1], [1, 0], color=axes.INK)
    figure.savefig(tmp_path / "line.png")
    assert (tmp_path / "line.png").read_bytes().startswith(b"\x89PNG")
    assert pyplot.get_fignums() == []


def test_colours_differ() -> None:
    assert len({axes.INK, axes.NOISE, axes.CURVATURE, axes.FAINT}) == 4


def test_without_matplotlib_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match="plots need matplotlib: pip install matplotlib"):
        axes.canvas()


def test_a_finished_figure_has_its_legend_and_two_sides_of_a_frame(tmp_path: Path) -> None:
    figure, drawn = axes.canvas(3, 2)
    drawn.plot([1, 2], [3, 4], label="a line")
    path = tmp_path / "picture.png"
    assert axes.finish(figure, drawn, path, legend="lower left") is figure
    assert [text.get_text() for text in drawn.get_legend().get_texts()] == ["a line"]
    place = drawn.get_legend().get_window_extent()
    assert place.y1 < figure.bbox.height / 2  # matplotlib's choice would be the upper left
    shown = {side for side, spine in drawn.spines.items() if spine.get_visible()}
    assert shown == {"left", "bottom"}
    assert path.read_bytes().startswith(b"\x89PNG")


def test_without_a_path_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    figure, drawn = axes.canvas(3, 2)
    drawn.plot([1, 2], label="a line")
    axes.finish(figure, drawn)
    assert not list(tmp_path.iterdir())


def test_plain_numbers_are_not_powers() -> None:
    _, drawn = axes.canvas()
    drawn.set_xscale("log", base=2)
    axes.plain_numbers(drawn.xaxis)
    assert drawn.xaxis.get_major_formatter()(1024, 0) == "1024"
