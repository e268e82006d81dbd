"""The figure of a picture: made without pyplot, checked before it is drawn, saved."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from gradnoise import ArgumentError
from gradnoise.show.figure import (
    axes_or_new,
    check_picture,
    figure_of,
    lay_out,
    new_panels,
    save,
)


def test_a_figure_of_the_size_asked_for_has_one_pair_of_axes() -> None:
    (drawn,) = new_panels(1, 5, 3)
    assert figure_of(drawn).get_size_inches().tolist() == [5, 3]
    assert figure_of(drawn).axes == [drawn]


def test_panels_above_one_another_have_one_x_axis() -> None:
    upper, lower = new_panels(2)
    assert figure_of(upper).axes == [upper, lower]
    upper.set_xlim(3, 4)
    assert lower.get_xlim() == (3, 4)


def test_axes_that_are_there_are_taken() -> None:
    (there,) = new_panels()
    assert axes_or_new(there) is there
    assert figure_of(axes_or_new(None, 4, 2)).get_size_inches().tolist() == [4, 2]


def test_the_figure_is_the_whole_one() -> None:
    whole = Figure()
    part = whole.subfigures(1, 2)[1]
    assert figure_of(part.subplots()) is whole


def test_a_figure_with_a_layout_finds_its_places_and_another_stays() -> None:
    for layout, moves in (("constrained", True), (None, False)):
        figure = Figure(layout=layout)
        axes = figure.subplots()
        before = axes.get_position().bounds
        lay_out(axes)
        assert (axes.get_position().bounds != before) is moves


def test_a_figure_can_be_written_and_pyplot_does_not_know_it(tmp_path: Path) -> None:
    from matplotlib import pyplot

    before = pyplot.get_fignums()  # of other tests
    (drawn,) = new_panels()
    save(figure_of(drawn), tmp_path / "line.png")
    assert (tmp_path / "line.png").read_bytes().startswith(b"\x89PNG")
    assert pyplot.get_fignums() == before


def test_what_cannot_be_written_is_one_error(tmp_path: Path) -> None:
    (drawn,) = new_panels()
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(ArgumentError, match=r"folder.png: Is a directory; give another path"):
        save(figure_of(drawn), tmp_path / "folder.png")


@pytest.mark.parametrize("name", ["map.xyz", "map", ".png", "map.txt"])
def test_a_wrong_ending_is_one_error_that_lists_endings(name: str, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=r"a picture ends in .*\.pdf, .*\.png, .*\.svg"):
        check_picture(tmp_path / name)


@pytest.mark.parametrize("name", ["map.png", "map.PDF", "a.b.svg"])
def test_a_name_that_can_be_written_is_fine(name: str, tmp_path: Path) -> None:
    check_picture(str(tmp_path / name))
    assert not list(tmp_path.iterdir())


def test_a_missing_folder_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=r"there is no folder .*none; make it"):
        check_picture(tmp_path / "none" / "map.png")


@pytest.mark.parametrize("module", ["matplotlib.figure", "matplotlib.backends.backend_agg"])
def test_without_matplotlib_the_cure_is_named(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match="plots need matplotlib: pip install matplotlib"):
        new_panels()
    with pytest.raises(ImportError, match="pip install matplotlib"):
        check_picture("map.png")
