"""The canvas of plots: drawn without pyplot."""

from __future__ import annotations

import sys

import pytest

from gradnoise.show import axes


def test_a_figure_of_the_size_asked_for_has_one_pair_of_axes() -> None:
    figure, drawn = axes.canvas(5, 3)
    assert figure.get_size_inches().tolist() == [5, 3]
    assert figure.axes == [drawn]


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
    with pytest.raises(ImportError, match=r"plots need matplotlib: pip install 'gradnoise\[plot\]"):
        axes.canvas()
