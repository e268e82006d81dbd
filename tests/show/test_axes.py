"""Axes that are finished, and what a method `plot` returns."""

from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gradnoise import ArgumentError
from gradnoise.show.axes import few_numbers, finish, plain_numbers, plotted
from gradnoise.show.figure import new_panels

LONG = "a title of many words that no line of a narrow picture can hold, so it must be broken"


def one(width: float = 3, height: float = 2) -> Axes:
    (axes,) = new_panels(1, width, height)
    axes.plot([1, 2], [3, 4], label="a line")
    return axes


def test_finished_axes_have_title_legend_and_two_sides_of_a_frame() -> None:
    axes = one()
    assert finish(axes, "a title") is axes
    assert axes.get_title() == "a title"
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["a line"]
    shown = {side for side, spine in axes.spines.items() if spine.get_visible()}
    assert shown == {"left", "bottom"}


def test_long_words_are_broken_where_the_axes_end() -> None:
    axes = one(3, 4)
    axes.set(xlabel=LONG, ylabel=LONG)
    finish(axes, LONG)
    axes.figure.draw_without_rendering()
    for text in (axes.title, axes.xaxis.label):
        assert text.get_text().replace("\n", " ") == LONG
        assert text.get_window_extent().width <= axes.bbox.width
    assert axes.yaxis.label.get_window_extent().height <= axes.bbox.height


def test_the_title_that_is_there_stays_where_none_is_given() -> None:
    axes = one()
    axes.set_title("mine")
    assert finish(axes).get_title() == "mine"


@pytest.mark.parametrize(
    ("base", "value", "label"),
    [(2, 1024, "1024"), (10, 0.001, "0.001"), (2, 2**20, "$2^{20}$"), (10, 1e-7, "$10^{-7}$")],
)
def test_numbers_are_plain_unless_they_are_long(base: int, value: float, label: str) -> None:
    axes = one()
    axes.set_xscale("log", base=base)
    plain_numbers(axes.xaxis)
    assert axes.xaxis.get_major_formatter()(value, 0) == label


@pytest.mark.parametrize(
    ("top", "numbers"), [(60, [1, 2, 5, 10, 20, 50]), (1e4, [1, 10, 100, 1000, 10000])]
)
def test_a_short_logarithmic_axis_has_numbers_between(top: float, numbers: list[float]) -> None:
    axes = one(6, 4)
    axes.set(xscale="log", xlim=(1, top))
    few_numbers(axes.xaxis)
    assert [tick for tick in axes.get_xticks() if 1 <= tick <= top] == pytest.approx(numbers)
    assert axes.xaxis.get_minor_formatter()(3, 0) == ""


def test_a_figure_is_returned_or_the_axes_that_were_given(tmp_path: Path) -> None:
    figure = plotted(one, None, None)
    assert isinstance(figure, Figure)
    mine, path = one(), tmp_path / "picture.png"
    assert plotted(lambda: mine, path, mine) is mine
    assert path.read_bytes().startswith(b"\x89PNG")


def test_nothing_is_drawn_where_it_could_not_be_saved(tmp_path: Path) -> None:
    drawn: list[Axes] = []

    def draw() -> Axes:
        drawn.append(one())
        return drawn[0]

    with pytest.raises(ArgumentError, match="a picture ends in"):
        plotted(draw, tmp_path / "picture.doc", None)
    assert not drawn


def test_without_a_path_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    plotted(one, None, None)
    assert not list(tmp_path.iterdir())
